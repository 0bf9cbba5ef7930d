//! The one loop that writes streams: what there is to say, a comment when there is nothing for a
//! while, for as long as the client is there.

use std::pin::Pin;

use bytes::Bytes;

use super::exchange::{Exchange, Extra, Gone};
use crate::silence::Silence;

/// What a stream says, as it comes.
pub trait Pieces {
    /// The next piece, which may be empty; `None` at the end. May be dropped while waiting without
    /// losing anything.
    async fn next(&mut self) -> Option<Bytes>;
}

/// Writes all pieces. The stream has begun.
pub async fn write(exchange: &mut Exchange, pieces: &mut impl Pieces) -> Result<(), Gone> {
    let mut silence = Silence::new(exchange.keep_alive());
    loop {
        let piece = tokio::select! {
            biased;
            piece = pieces.next() => match piece {
                Some(piece) => piece,
                None => return Ok(()),
            },
            () = exchange.client_gone() => return Err(Gone),
            () = silence.lasts() => exchange.sign_of_life(),
        };
        if !piece.is_empty() {
            exchange.write(piece).await?;
            silence.broken();
        }
    }
}

/// Runs `work`, which comes before a stream's first piece, while the client waits; `None` when it
/// left first. A client that has waited long gets the head, with `extra`, and comments: from then on
/// an error is told in the stream. Pinned by the caller, as a future that is handed over is held
/// twice.
pub async fn before<T>(
    exchange: &mut Exchange,
    extra: &[Extra],
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let patience = exchange.keep_alive();
    let mut silence = Silence::new(patience.saturating_sub(exchange.waited()));
    loop {
        tokio::select! {
            biased;
            done = work.as_mut() => return Some(done),
            () = exchange.client_gone() => break,
            () = silence.lasts() => {}
        }
        // Boxed: seldom, and whoever waits would hold room for it.
        let told = async {
            exchange.start_stream(extra).await?;
            let alive = exchange.sign_of_life();
            exchange.write(alive).await
        };
        if Box::pin(told).await.is_err() {
            break;
        }
        silence = Silence::new(patience);
    }
    None
}
