//! A site that dials in: the networks behind both ends reach each other.

use serde_json::json;
use towline_tests::peer::{INNER, Lac, Lns};
use towline_tests::process::run;
use towline_tests::server::User;
use towline_tests::site::Side;

use super::world::{SERVER, World};

#[test]
fn hosts_behind_a_site_and_hosts_behind_the_server_reach_each_other_by_their_own_addresses() {
    let users = [User::with("oslo", "fjord", json!({"networks": ["10.30.0.0/24"]}))];
    let world = World::with(&users, |config| config["forwarding"]["sourceNat"] = json!("None"));
    let page = "the page behind the site";
    let like = Lns { user: "oslo".to_owned(), password: "fjord".to_owned(), page: page.to_owned(), ..Lns::default() };
    let lac = Lac { behind: Some("10.30.0.11".to_owned()), ..Lac::new(SERVER, like) };
    let oslo = world.client_at(Side::Lan, "198.51.100.20", &lac);
    world.connect(&oslo);
    // From the site to the server's network: its own address arrives there.
    let ask = format!("curl -sS --max-time 10 --interface 10.30.0.11 http://{INNER}/cgi-bin/from");
    let from = oslo.exec(&ask).unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs(&oslo)));
    assert_eq!(from.trim(), "10.30.0.11");
    // And from there to the site.
    let mut ask = world.inside.host.exec("curl");
    let got = run(ask.args(["-sS", "--max-time", "10", "http://10.30.0.11/"]));
    let got = got.unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs(&oslo)));
    assert_eq!(got.trim(), page);
    run(world.inside.host.exec("ping").args(["-c", "5", "-i", "0.2", "-W", "2", "10.30.0.11"])).unwrap();
    // What is not the site's own does not come in as if it were.
    oslo.exec("ip address add 10.31.0.11/32 dev inner").unwrap();
    oslo.exec(&format!("ping -c 3 -i 0.2 -W 1 -I 10.31.0.11 {INNER}")).unwrap_err();
}
