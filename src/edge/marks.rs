//! What the router says to the edge with an answer.

/// Says to the edge that the answer's body is to be passed on piece by piece.
#[derive(Debug, Clone, Copy)]
pub struct Streamed;

/// The pattern of the route that answered, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct RoutePattern(pub &'static str);
