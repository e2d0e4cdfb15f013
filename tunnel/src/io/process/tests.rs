use super::*;
use crate::config;
use crate::io::namespace::{add_address, in_namespace};
use crate::io::scratch::Scratch;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::net::TcpListener;

/// The sockets of a process that has ended stay open as long as the runtime of the test: the next one needs a port of its own.
fn options(folder: &Scratch, leave_routes: bool) -> Options {
    static NEXT: AtomicU16 = AtomicU16::new(9_090);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = folder.write("secret", b"secret");
    let text = format!(
        r#"{{"peers": [{{"address": "192.0.2.1"}}], "network": {{"remoteCIDRs": ["10.20.0.0/16"]}},
            "credentials": {{"preSharedKey": {{"path": {file:?}}}, "username": {{"path": {file:?}}}, "password": {{"path": {file:?}}}}},
            "admin": {{"listen": "0.0.0.0:{port}", "socket": {:?}}}}}"#,
        folder.path().join("control.sock")
    );
    let config = config::parse(&text).unwrap();
    Options { path: folder.write("config.json", text.as_bytes()), text, config, keys: None, leave_routes }
}

async fn begin(options: Options) -> anyhow::Result<Process> {
    let (sender, messages) = mpsc::channel(MAX_MESSAGES);
    // What its tasks say has no place to go.
    drop(messages);
    start(options, Verbosity::detached(), sender).await
}

fn link() -> Link {
    Link { address: [10, 9, 0, 5].into(), peer: None, dns: Vec::new(), mtu: 1300 }
}

/// Whether 10.20.0.1 is reached, and if not the error.
fn connect() -> Option<i32> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("10.20.0.1:9").err().map(|error| error.raw_os_error().unwrap())
}

#[test]
fn an_import_is_served_at_the_address_of_the_link_and_only_while_it_is_up() {
    in_namespace(async || {
        let folder = Scratch::new();
        let mut options = options(&folder, false);
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = echo.local_addr().unwrap().port();
        let (name, host, protocol) = ("page".to_owned(), "127.0.0.1".to_owned(), config::Protocol::Tcp);
        options.config.imports = vec![config::server::Import { name, listen: 80, host, port, protocol }];
        let mut process = begin(options).await.unwrap();
        add_address(&process.netlink, "lo", [192, 0, 2, 7].into()).await;
        let ask = async |address: &str| tokio::net::TcpStream::connect(address).await;
        assert!(process.report().imports.is_empty());
        process.up(link()).await;
        assert_eq!(process.report().imports.iter().map(|import| &import.problem).collect::<Vec<_>>(), [&None]);
        let (asked, answered) = tokio::join!(ask("10.9.0.5:80"), echo.accept());
        assert!(asked.is_ok() && answered.is_ok());
        ask("127.0.0.1:80").await.unwrap_err();
        process.down().await;
        assert!(process.report().imports.is_empty());
        ask("10.9.0.5:80").await.unwrap_err();
        process.end().await;
    });
}

const OTHERWISE: Option<i32> = Some(libc::ENETUNREACH);
const BLOCKED: Option<i32> = Some(libc::EHOSTUNREACH);

#[test]
fn a_process_blocks_the_remote_networks_until_its_end_and_longer_if_asked() {
    in_namespace(async || {
        assert_eq!(connect(), OTHERWISE);
        for (leave_routes, after) in [(true, BLOCKED), (false, OTHERWISE)] {
            let folder = Scratch::new();
            let mut process = begin(options(&folder, leave_routes)).await.unwrap();
            assert_eq!(connect(), BLOCKED);
            process.up(link()).await;
            assert_eq!(connect(), None);
            process.end().await;
            assert_eq!(connect(), after);
            assert!(!folder.path().join("control.sock").exists());
        }
    });
}

#[test]
fn a_start_that_fails_leaves_nothing_behind_unless_asked() {
    in_namespace(async || {
        for (leave_routes, after) in [(false, OTHERWISE), (true, BLOCKED)] {
            let folder = Scratch::new();
            let options = options(&folder, leave_routes);
            let _taken = std::net::TcpListener::bind(options.config.admin.listen).unwrap();
            let error = begin(options).await.err().unwrap();
            assert!(format!("{error:#}").contains("admin.listen"), "{error:#}");
            assert_eq!(connect(), after);
            assert!(!folder.path().join("control.sock").exists());
        }
    });
}

#[test]
fn a_second_process_in_one_network_namespace_is_refused() {
    in_namespace(async || {
        let (one, two) = (Scratch::new(), Scratch::new());
        let first = begin(options(&one, false)).await.unwrap();
        let error = begin(options(&two, false)).await.err().unwrap();
        assert!(error.to_string().contains("another towline-tunnel"), "{error}");
        assert_eq!(connect(), BLOCKED);
        first.end().await;
    });
}

#[test]
fn a_link_that_cannot_be_set_up_is_taken_back() {
    in_namespace(async || {
        let folder = Scratch::new();
        let mut process = begin(options(&folder, false)).await.unwrap();
        process.up(link()).await;
        let index = process.netlink.index("towline0").await.unwrap();
        process.netlink.handle.link().del(index).execute().await.unwrap();
        let _taken = Device::open("towline0").unwrap();
        process.device.readable().await;
        process.settle().await;
        assert_eq!((process.link.is_none(), *process.link_state.borrow()), (true, None));
        assert_eq!(connect(), BLOCKED);
        process.end().await;
    });
}

#[test]
fn a_device_that_somebody_deletes_is_made_again_with_its_routes() {
    in_namespace(async || {
        let folder = Scratch::new();
        let mut process = begin(options(&folder, false)).await.unwrap();
        process.up(link()).await;
        let index = process.netlink.index("towline0").await.unwrap();
        process.netlink.handle.link().del(index).execute().await.unwrap();
        assert_eq!(connect(), BLOCKED);
        process.device.readable().await;
        process.read_device();
        process.settle().await;
        assert!(process.link.is_some() && !process.device.is_lost());
        assert_eq!(connect(), None);
        process.end().await;
    });
}
