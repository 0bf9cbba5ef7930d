//! The table of routes: what the edge must know of each before its handler is asked. Nothing else is
//! in this file, so that a change of a route is seen. Beside it: `need` (who may send a body), the
//! `router` behind the bridge, the `document` that is made of all rooms, and its `reference`.

mod document;
mod need;
mod reference;
mod router;

use std::sync::Arc;

use http::Method;

use crate::edge::{Route, Routes};
use crate::gateway::Gateway;
use crate::{channel, wire};

/// Of the REST resources, those that are not as all others are.
fn rest() -> Vec<Route> {
    vec![
        Route::rest(Method::GET, "/health").open(),
        Route::rest(Method::GET, "/ready").open(),
        Route::rest(Method::GET, "/.well-known/jwks.json").open(),
        Route::rest(Method::GET, "/openapi.json").open(),
        Route::rest(Method::GET, "/reference").open(),
        Route::rest(Method::GET, "/v1/oauth/callback").open(),
        // Passed on as it arrives.
        Route::rest(Method::POST, "/v1/files").upload(),
    ]
}

/// All that are listed.
fn listed() -> Vec<Route> {
    [
        wire::chat::routes(),
        wire::responses::routes(),
        wire::messages::routes(),
        wire::gemini::routes(),
        wire::ui::routes(),
        wire::native::routes(),
        wire::mcp::routes(),
        wire::embeddings::routes(),
        wire::relay::routes(),
        channel::routes(),
        rest(),
    ]
    .concat()
}

/// The table of a gateway.
pub fn of(gateway: Arc<Gateway>) -> Routes {
    let listed: Arc<[Route]> = listed().into();
    Routes {
        router: router::router(gateway, listed.clone()),
        listed,
        need: need::of,
        metadata: wire::mcp::metadata_url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations of the document, as method and pattern, and whether they need no token.
    fn operations() -> Vec<(Method, String, bool)> {
        let document = serde_json::to_value(document::document()).expect("JSON");
        let mut found = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (name, operation) in item.as_object().expect("operations") {
                let open = operation["security"].as_array().is_some_and(|all| {
                    all.iter()
                        .any(|one| one.as_object().is_some_and(|o| o.is_empty()))
                });
                let method = name.to_uppercase().parse().expect("a method");
                found.push((method, path.clone(), open));
            }
        }
        assert!(found.len() > 100);
        found
    }

    #[test]
    fn the_document_and_the_table_agree() {
        let operations = operations();
        for route in listed() {
            if ["/openapi.json", "/reference"].contains(&route.pattern) {
                continue;
            }
            let documented = operations.iter().find(|(method, path, _)| {
                let known = route.pattern.split("{*").next().unwrap_or_default();
                *method == route.method
                    && (path == route.pattern
                        || route.pattern.contains("{*") && path.starts_with(known))
            });
            assert!(documented.is_some(), "{} {}", route.method, route.pattern);
        }
        for (method, path, open) in operations {
            let known = listed().iter().any(|route| {
                let known = route.pattern.split("{*").next().unwrap_or_default();
                route.open
                    && route.method == method
                    && (route.pattern == path
                        || route.pattern.contains("{*") && path.starts_with(known))
            });
            assert_eq!(known, open, "{method} {path}");
        }
    }
}
