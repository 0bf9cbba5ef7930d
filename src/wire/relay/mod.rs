//! The other paths of OpenAI's API, and any path of any provider: what is no model's turn is passed on to
//! the provider that its model or a header names, through the same gate as all calls (who calls, limits,
//! budgets, the address guard), and answered as the provider answers.
//!
//! Lives here: which `paths` there are, how a form's model is found (`form`), how a call is served.
//!
//! A body that is no JSON is passed on as it arrives, and never held whole; the model's name in a form is
//! looked for in its beginning. What a provider keeps for its account (batches, uploads, fine-tuning, and
//! all that is passed through) is reached with the tenant's own key alone: an account that tenants share
//! would show each what the others have there.

mod answer;
mod document;
mod form;
mod paths;
mod serve;

pub use document::documented;
pub use paths::TAG;
pub use serve::routes;
