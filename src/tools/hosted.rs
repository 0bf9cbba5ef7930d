//! The tools that run in this process, by the name that enables them (`tools.md`, "Hosted tools").

/// A hosted tool, or a bundle of them under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostedTool {
    pub name: &'static str,
    pub description: &'static str,
}

const fn tool(name: &'static str, description: &'static str) -> HostedTool {
    HostedTool { name, description }
}

/// All of them.
pub const HOSTED: &[HostedTool] = &[
    tool(
        "calculator",
        "Arithmetic: add, subtract, multiply, divide, power, sqrt, modulo, factorial, percentage, \
         and whole expressions.",
    ),
    tool(
        "reasoning",
        "A scratchpad for thinking a task through and analyzing results.",
    ),
    tool("web_fetch", "Reads a web page as text."),
    tool("web_search", "Searches the web."),
    tool("file_search", "Searches the smith's vector stores."),
    tool("current_time", "The date and time in a time zone."),
    tool(
        "suggest_replies",
        "Offers the person short replies to choose from.",
    ),
    tool("recall", "Searches the smith's past messages."),
];
