//! Where clients come from: the same network, behind a NAT, several behind one NAT with the same address.

use std::thread;

use towline_tests::peer::{Guest, INNER, Lac, Lns};
use towline_tests::server::User;
use towline_tests::site::{Home, Inside, Side};

use super::world::{PAGE, SERVER, World, local};

#[test]
fn a_client_in_the_same_network_gets_an_address_and_name_servers_and_reaches_the_host_behind_the_server() {
    let mut world = World::new();
    let client = world.client(Side::Wan, Lns::default());
    let link = world.connect(&client);
    assert!(link.contains("remote=10.20.5.1") && link.contains("dns=10.20.4.11,10.20.4.12"), "{link}");
    assert!(local(&link).starts_with("10.20.5."), "{link}");
    assert!(client.pings(INNER) && client.pings("10.20.5.1"));
    // The kernel hides clients behind the server's own address.
    let from = client.exec(&format!("curl -sS --max-time 10 http://{INNER}/cgi-bin/from")).unwrap();
    assert_eq!(from.trim(), Inside::SERVER);
    client.hang_up().unwrap();
    world.server.wait_sessions(0, super::world::PATIENCE).unwrap();
}

#[test]
fn a_client_behind_a_nat_is_followed_to_a_new_mapping() {
    let world = World::new();
    let client = world.client(Side::Lan, Lns::default());
    world.connect(&client);
    world.site.forget_mappings().unwrap();
    assert!(client.pings(INNER), "{}", world.logs(&client));
    assert_eq!(client.fetch(INNER).unwrap(), PAGE);
}

#[test]
fn a_client_that_forces_encapsulation_without_a_nat_is_served() {
    let world = World::new();
    let client = world.client(Side::Wan, Lns { force_encapsulation: true, ..Lns::default() });
    world.connect(&client);
}

#[test]
fn three_clients_behind_one_nat_two_of_them_with_the_same_address_all_pass_traffic_at_once() {
    let names = ["alice", "bob", "carol"];
    let users = names.map(|name| User::new(name, "wonderland"));
    let mut world = World::with(&users, |_| {});
    let homes = ["198.51.100.31", "198.51.100.32"].map(|outer| world.site.home(outer).unwrap());
    let lac = |user: &str| {
        // Clients are routed to each other too.
        let routes = vec!["10.20.4.0/24".to_owned(), "10.20.5.0/24".to_owned()];
        Lac { routes, ..Lac::new(SERVER, Lns { user: user.to_owned(), ..Lns::default() }) }
    };
    let clients = thread::scope(|scope| {
        let first = scope.spawn(|| world.client_at(Side::Lan, "198.51.100.20", &lac("alice")));
        let others = ["bob", "carol"].into_iter().zip(&homes).map(|(user, home)| {
            let lac = lac(user);
            scope.spawn(move || Guest::lac(&home.bridge, "lac", "192.168.1.20", Home::ROUTER, &lac).unwrap())
        });
        let others: Vec<_> = others.collect();
        let mut clients = vec![first.join().unwrap()];
        clients.extend(others.into_iter().map(|other| other.join().unwrap()));
        clients
    });
    let mut addresses = Vec::new();
    for client in &clients {
        addresses.push(local(&world.connect(client)).to_owned());
    }
    let report = world.server.wait_sessions(3, super::world::PATIENCE).unwrap();
    assert_eq!(report.users.iter().filter(|user| user.sessions == 1).count(), 3, "{report:#?}");
    let pings: Vec<_> = clients.iter().map(|client| client.start_pings(INNER).unwrap()).collect();
    thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(client.fetch(INNER).unwrap(), PAGE);
                }
            });
        }
    });
    for (ping, client) in pings.into_iter().zip(&clients) {
        assert!(ping.finish().unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs(client))) >= 10);
    }
    // Each reaches each of the others too.
    for (client, own) in clients.iter().zip(&addresses) {
        for other in addresses.iter().filter(|other| *other != own) {
            assert!(client.pings(other), "{own} does not reach {other}\n{}", world.logs(client));
        }
    }
    // One hangs up, and the others do not notice.
    clients[1].hang_up().unwrap();
    world.server.wait_sessions(2, super::world::PATIENCE).unwrap();
    assert!(clients[0].pings(INNER) && clients[2].pings(INNER));
}
