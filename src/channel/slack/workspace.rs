//! Which bot speaks in a workspace.

use serde_json::{Value, json};

use super::api::{Workspace, is_id};
use super::{Install, KIND, Secrets, install_kind, oauth};
use crate::channel::{Account, Fault, Hub};

/// The workspace `team` of a tenant; an empty one is that of the tenant's own bot.
pub async fn workspace(hub: &Hub, tenant_id: &str, team: &str) -> Result<Workspace, Fault> {
    let account: Option<Account<Secrets>> = hub.account_lately(tenant_id, KIND).await?;
    let account =
        account.ok_or_else(|| Fault::Never("slack_unconfigured: the tenant has no app".into()))?;
    let word = |settings: &Value, name: &str| settings[name].as_str().unwrap_or("").to_owned();
    let settings = &account.settings;
    let is_whole = settings["is_enterprise_install"] == json!(true);
    let is_own = team.is_empty() || settings["team_id"] == json!(team) || is_whole;
    if let (true, Some(token)) = (is_own, &account.secrets.bot_token) {
        return Ok(Workspace {
            token: token.clone(),
            bot_user_id: word(settings, "bot_user_id"),
        });
    }
    let installed: Option<Account<Install>> = match is_id(team) {
        true => hub.account(tenant_id, &install_kind(team)).await?,
        false => None,
    };
    match installed {
        Some(install) => {
            let install = oauth::fresh(hub, tenant_id, team, &account, install).await?;
            Ok(Workspace {
                token: install.secrets.bot_token,
                bot_user_id: word(&install.settings, "bot_user_id"),
            })
        }
        None => Err(Fault::Never(format!(
            "the app is not installed in workspace '{team}'"
        ))),
    }
}
