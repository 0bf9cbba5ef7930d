//! The deployments that a host talks with, and whom they answer for.

use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::store::DeploymentRow;

/// An MCP deployment of the tenant.
pub async fn deployment(
    gateway: &Gateway,
    tenant: &str,
    id: &str,
) -> Result<DeploymentRow, ApiError> {
    let deployment = gateway.store.deployment(tenant, id).await?;
    deployment
        .filter(|row| row.kind == "mcp")
        .ok_or_else(|| ApiError::not_found("deployment", id))
}

/// Checks that this deployment answers for this smith.
pub async fn answers_for(
    gateway: &Gateway,
    tenant: &str,
    deployment_id: &str,
    smith_id: &str,
) -> Result<(), ApiError> {
    let deployment = deployment(gateway, tenant, deployment_id).await?;
    check_smith(gateway, &deployment, smith_id).await
}

/// Refuses a smith that this deployment does not answer for.
pub async fn check_smith(
    gateway: &Gateway,
    deployment: &DeploymentRow,
    smith_id: &str,
) -> Result<(), ApiError> {
    let answers = if deployment.target_type == "smith" {
        deployment.target_id == smith_id
    } else {
        let smith = gateway.store.smith(&deployment.tenant_id, smith_id).await?;
        let smith = smith.ok_or_else(|| ApiError::not_found("smith", smith_id))?;
        smith.agent_id == deployment.target_id
    };
    match answers {
        true => Ok(()),
        false => Err(ApiError::forbidden(
            "forbidden_target",
            "this deployment answers for another smith",
        )),
    }
}
