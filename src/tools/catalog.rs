//! Presets of known public MCP servers: where they are, and how one signs in. The addresses are
//! those that the services document for their hosted servers.

use crate::store::{ApprovalRule, McpAuth};

/// A known MCP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogEntry {
    pub slug: &'static str,
    pub display_name: &'static str,
    pub description: &'static str,
    pub mcp_url: &'static str,
    pub auth: McpAuth,
    /// Whose grants are used, with OAuth.
    pub provider: Option<&'static str>,
    pub scopes: &'static [&'static str],
    /// Globs over tools that wait for an approval.
    pub approvals: &'static [&'static str],
    pub docs_url: &'static str,
}

impl CatalogEntry {
    /// The approval policy of servers that are registered by this preset and bring none.
    pub fn approval_policy(&self) -> Vec<ApprovalRule> {
        self.approvals
            .iter()
            .map(|pattern| ApprovalRule {
                pattern: (*pattern).to_owned(),
                require: Some("approval".to_owned()),
            })
            .collect()
    }
}

/// The preset of a slug.
pub fn entry(slug: &str) -> Option<&'static CatalogEntry> {
    CATALOG.iter().find(|entry| entry.slug == slug)
}

/// All presets, by slug.
pub const CATALOG: &[CatalogEntry] = &[
    CatalogEntry {
        slug: "context7",
        display_name: "Context7",
        description: "Current documentation of libraries.",
        mcp_url: "https://mcp.context7.com/mcp",
        auth: McpAuth::None,
        provider: None,
        scopes: &[],
        approvals: &[],
        docs_url: "https://github.com/upstash/context7",
    },
    CatalogEntry {
        slug: "deepwiki",
        display_name: "DeepWiki",
        description: "Questions and answers about public repositories.",
        mcp_url: "https://mcp.deepwiki.com/mcp",
        auth: McpAuth::None,
        provider: None,
        scopes: &[],
        approvals: &[],
        docs_url: "https://docs.devin.ai/work-with-devin/deepwiki-mcp",
    },
    CatalogEntry {
        slug: "github",
        display_name: "GitHub",
        description: "Repositories, issues and pull requests.",
        mcp_url: "https://api.githubcopilot.com/mcp/",
        auth: McpAuth::Oauth,
        provider: Some("github"),
        scopes: &["repo", "read:org"],
        approvals: &["create_*", "update_*", "delete_*", "merge_*", "push_*"],
        docs_url: "https://github.com/github/github-mcp-server",
    },
    CatalogEntry {
        slug: "linear",
        display_name: "Linear",
        description: "Issues, projects and comments.",
        mcp_url: "https://mcp.linear.app/mcp",
        auth: McpAuth::Oauth,
        provider: Some("linear"),
        scopes: &["read", "write"],
        approvals: &["create_*", "update_*", "delete_*"],
        docs_url: "https://linear.app/docs/mcp",
    },
    CatalogEntry {
        slug: "notion",
        display_name: "Notion",
        description: "Pages and databases of a workspace.",
        mcp_url: "https://mcp.notion.com/mcp",
        auth: McpAuth::Oauth,
        provider: Some("notion"),
        scopes: &[],
        approvals: &["*create*", "*update*", "*move*"],
        docs_url: "https://developers.notion.com/docs/mcp",
    },
    CatalogEntry {
        slug: "sentry",
        display_name: "Sentry",
        description: "Errors and performance of applications.",
        mcp_url: "https://mcp.sentry.dev/mcp",
        auth: McpAuth::Oauth,
        provider: Some("sentry"),
        scopes: &[],
        approvals: &["create_*", "update_*"],
        docs_url: "https://docs.sentry.io/product/sentry-mcp/",
    },
    CatalogEntry {
        slug: "stripe",
        display_name: "Stripe",
        description: "Balances, charges, customers and refunds.",
        mcp_url: "https://mcp.stripe.com",
        auth: McpAuth::Bearer,
        provider: None,
        scopes: &[],
        approvals: &["create_*", "update_*", "cancel_*", "finalize_*"],
        docs_url: "https://docs.stripe.com/mcp",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_usable() {
        for entry in CATALOG {
            assert!(crate::upstream::Endpoint::parse(entry.mcp_url, false).is_ok());
            assert_eq!(entry.auth == McpAuth::Oauth, entry.provider.is_some());
            for pattern in entry.approvals {
                assert!(globset::Glob::new(pattern).is_ok(), "{pattern}");
            }
        }
        assert!(CATALOG.is_sorted_by_key(|entry| entry.slug));
        assert_eq!(entry("stripe").map(|e| e.approval_policy().len()), Some(4));
    }
}
