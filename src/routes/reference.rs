//! `GET /reference`: the API as one page that a person reads, made from the OpenAPI document. No
//! script and nothing from elsewhere, so that it works on a node without a way out.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;
use utoipa::openapi::OpenApi as Document;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;\
    padding:0 1rem;color:#1b1f24;background:#fff}code,pre{font:14px/1.4 ui-monospace,monospace}\
    details{border:1px solid #d5dae0;border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}\
    summary{cursor:pointer}b.method{display:inline-block;width:4.5rem}table{border-collapse:\
    collapse;width:100%}td{border-top:1px solid #e5e8ec;padding:.2rem .6rem .2rem 0;\
    vertical-align:top}nav a{margin-right:1rem}@media(prefers-color-scheme:dark){body{color:\
    #e6e9ed;background:#14171a}details{border-color:#3a4047}td{border-color:#2b3036}a{color:#8ab4f8}}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The name that a schema goes by.
fn type_name(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap_or_default();
        return format!("<a href=\"#schema-{0}\">{0}</a>", escaped(name));
    }
    for union in ["oneOf", "anyOf", "allOf"] {
        if let Some(parts) = schema[union].as_array() {
            let names: Vec<String> = parts.iter().map(type_name).collect();
            return names.join(if union == "allOf" { " &amp; " } else { " | " });
        }
    }
    if schema["items"].is_object() {
        let item = type_name(&schema["items"]);
        let nullable = schema["type"]
            .as_array()
            .is_some_and(|types| types.iter().any(|t| t == "null"));
        return format!("{item}[]{}", if nullable { " | null" } else { "" });
    }
    match &schema["type"] {
        Value::String(name) => escaped(name),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .map(escaped)
            .collect::<Vec<_>>()
            .join(" | "),
        _ => "any".to_owned(),
    }
}

fn row(out: &mut String, name: &str, kind: &str, required: bool, text: &str) {
    let mark = if required { "" } else { "?" };
    let _ = write!(
        out,
        "<tr><td><code>{}{mark}</code></td><td><code>{kind}</code></td><td>{}</td></tr>",
        escaped(name),
        escaped(text)
    );
}

fn operation(out: &mut String, path: &str, method: &str, operation: &Value) {
    let summary = operation["summary"].as_str().unwrap_or_default();
    let _ = write!(
        out,
        "<details><summary><b class=method>{}</b> <code>{}</code> {}</summary>",
        method.to_uppercase(),
        escaped(path),
        escaped(summary)
    );
    if let Some(text) = operation["description"].as_str() {
        let _ = write!(out, "<p>{}</p>", escaped(text));
    }
    out.push_str("<table>");
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let text = parameter["description"].as_str().unwrap_or_default();
        let place = parameter["in"].as_str().unwrap_or_default();
        row(
            out,
            parameter["name"].as_str().unwrap_or_default(),
            &type_name(&parameter["schema"]),
            parameter["required"] == true,
            &format!("{place}. {text}"),
        );
    }
    for (media, content) in operation["requestBody"]["content"]
        .as_object()
        .into_iter()
        .flatten()
    {
        row(out, "body", &type_name(&content["schema"]), true, media);
    }
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let contents: Vec<(String, String)> = response["content"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(media, content)| (media.clone(), type_name(&content["schema"])))
            .collect();
        if contents.is_empty() {
            row(out, &format!("→ {status}"), "", true, "no body");
        }
        for (media, kind) in contents {
            row(out, &format!("→ {status}"), &kind, true, &media);
        }
    }
    out.push_str("</table></details>");
}

/// The page.
pub fn page(document: &Document) -> String {
    let document = serde_json::to_value(document).unwrap_or_default();
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, described) in item.as_object().into_iter().flatten() {
            let tag = described["tags"][0].as_str().unwrap_or("other").to_owned();
            operation(groups.entry(tag).or_default(), path, method, described);
        }
    }
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Smithgate API</title>\
         <meta name=viewport content=\"width=device-width\"><style>{STYLE}</style>\
         <h1>Smithgate API</h1><p>{}. <a href=/openapi.json>OpenAPI document</a></p><nav>",
        escaped(document["info"]["description"].as_str().unwrap_or_default())
    );
    for tag in groups.keys() {
        let _ = write!(out, "<a href=\"#{0}\">{0}</a> ", escaped(tag));
    }
    out.push_str("<a href=\"#schemas\">schemas</a></nav>");
    for (tag, operations) in &groups {
        let _ = write!(out, "<h2 id=\"{0}\">{0}</h2>{operations}", escaped(tag));
    }
    out.push_str("<h2 id=schemas>schemas</h2>");
    for (name, schema) in document["components"]["schemas"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let _ = write!(
            out,
            "<details id=\"schema-{0}\"><summary><code>{0}</code> {1}</summary><table>",
            escaped(name),
            escaped(schema["description"].as_str().unwrap_or_default())
        );
        let required = schema["required"].as_array();
        for (field, described) in schema["properties"].as_object().into_iter().flatten() {
            let needed = required.is_some_and(|all| all.iter().any(|name| name == field));
            let text = described["description"].as_str().unwrap_or_default();
            row(&mut out, field, &type_name(described), needed, text);
        }
        out.push_str("</table></details>");
    }
    out.push_str("</html>");
    out
}
