//! The list of routes against the routes; that every route is in it is asserted where they are answered.

use kingpole_frontends::HTTP_ROUTES;

use crate::server::Server;

#[test]
fn every_route_of_the_list_is_there() {
    let server = Server::start();
    for (pattern, methods) in HTTP_ROUTES {
        let path = pattern.replace("{model}", "identity").replace("{version}", "1").replace("{label}", "1");
        let path = path.replace("{region}", "mine");
        for method in *methods {
            // No route leaves it out, and only some have something to say to it.
            let body: &[u8] = if *method == "GET" { b"" } else { b"{}" };
            let response = server.ask(method, &path, &[], body);
            assert_ne!(response.status, 405, "{method} {path}");
            assert!(!response.text().contains("nothing is at"), "{method} {path}: {response:?}");
        }
        let refused = server.ask("OPTIONS", &path, &[], b"");
        let allowed: Vec<_> = refused.header("allow").unwrap_or_default().split(", ").collect();
        let told: Vec<_> = allowed.into_iter().filter(|&method| method != "HEAD").collect();
        assert_eq!((refused.status, told.as_slice()), (405, *methods), "{path}");
    }
}
