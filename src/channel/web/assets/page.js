// The chat page. No library, no build step, no other host.
//
// Nothing that anybody wrote is ever parsed as HTML: all of it is text in elements that are made here,
// and links lead to http, https and mailto alone.
"use strict";

(() => {
  const { page, framed, locked, maxFile } = document.body.dataset;
  const base = `/hosted/${page}`;
  const isFramed = framed === "true";
  const get = (id) => document.getElementById(id);

  // ---- Elements

  function el(tag, props = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(props)) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function icon(path) {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    const drawn = document.createElementNS(space, "path");
    drawn.setAttribute("d", path);
    svg.append(drawn);
    return svg;
  }

  // ---- Markdown: blocks, then what is in a line

  const MAX_DEPTH = 10;
  const MAX_INLINE = 20000;
  const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
  const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
  const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
  const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:([ \t]+)(.*)|$)/;
  const DIVIDER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

  const indent = (line) => line.length - line.trimStart().length;

  function blocksOf(lines, depth) {
    const blocks = [];
    let at = 0;
    const add = (from, block) => blocks.push({ ...block, source: lines.slice(from, at).join("\n") });
    while (at < lines.length) {
      const from = at;
      const line = lines[at];
      if (line.trim() === "") {
        at += 1;
        continue;
      }
      const fence = FENCE.exec(line);
      if (fence) {
        const lead = indent(line);
        const body = [];
        let isOpen = true;
        at += 1;
        while (at < lines.length && isOpen) {
          const end = lines[at].trim();
          isOpen = !(end.startsWith(fence[1]) && end.replaceAll(fence[1][0], "") === "");
          if (isOpen) body.push(lines[at].slice(Math.min(lead, indent(lines[at]))));
          at += 1;
        }
        add(from, { kind: "code", language: fence[2], text: body.join("\n") });
        continue;
      }
      const heading = HEADING.exec(line);
      if (heading) {
        at += 1;
        add(from, { kind: "heading", level: heading[1].length, text: heading[2] ?? "" });
        continue;
      }
      if (RULE.test(line)) {
        at += 1;
        add(from, { kind: "rule" });
        continue;
      }
      if (/^ {0,3}>/.test(line) && depth < MAX_DEPTH) {
        const inner = [];
        while (at < lines.length && lines[at].trim() !== "" && (/^ {0,3}>/.test(lines[at]) || inner.length > 0)) {
          inner.push(lines[at].replace(/^ {0,3}> ?/, ""));
          at += 1;
        }
        add(from, { kind: "quote", blocks: blocksOf(inner, depth + 1) });
        continue;
      }
      if (ITEM.test(line) && depth < MAX_DEPTH) {
        const list = listAt(lines, at, depth);
        at = list.end;
        add(from, list);
        continue;
      }
      if (line.includes("|") && at + 1 < lines.length && DIVIDER.test(lines[at + 1]) && lines[at + 1].includes("-")) {
        const head = cells(line);
        const sides = cells(lines[at + 1]).map((cell) => {
          const [left, right] = [cell.startsWith(":"), cell.endsWith(":")];
          return right ? (left ? "center" : "right") : "left";
        });
        if (head.length === sides.length) {
          const rows = [];
          at += 2;
          while (at < lines.length && lines[at].includes("|") && lines[at].trim() !== "") {
            rows.push(cells(lines[at]));
            at += 1;
          }
          add(from, { kind: "table", head, sides, rows });
          continue;
        }
      }
      const text = [];
      while (at < lines.length && lines[at].trim() !== "" && (at === from || !interrupts(lines[at]))) {
        if (text.length > 0 && /^ {0,3}(=+|-+)[ \t]*$/.test(lines[at])) break;
        text.push(lines[at].trimStart());
        at += 1;
      }
      const under = at < lines.length ? /^ {0,3}(=+|-+)[ \t]*$/.exec(lines[at]) : null;
      if (under && text.length > 0) {
        at += 1;
        add(from, { kind: "heading", level: under[1][0] === "=" ? 1 : 2, text: text.join("\n") });
      } else {
        add(from, { kind: "text", text: text.join("\n") });
      }
    }
    return blocks;
  }

  function interrupts(line) {
    const item = ITEM.exec(line);
    const begins = item && item[4] !== undefined && item[4] !== "" && (!/\d/.test(item[2]) || parseInt(item[2], 10) === 1);
    return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || /^ {0,3}>/.test(line) || begins;
  }

  function listAt(lines, at, depth) {
    const first = ITEM.exec(lines[at]);
    const isOrdered = /\d/.test(first[2]);
    const mark = isOrdered ? first[2].at(-1) : first[2];
    const lead = first[1].length;
    const items = [];
    let isLoose = false;
    let blank = false;
    while (at < lines.length) {
      const line = lines[at];
      if (line.trim() === "") {
        blank = true;
        at += 1;
        continue;
      }
      const item = ITEM.exec(line);
      const isNext = item && item[1].length <= lead + 1 && item[1].length >= lead - 1 &&
        /\d/.test(item[2]) === isOrdered && (isOrdered ? item[2].at(-1) : item[2]) === mark && !RULE.test(line);
      if (isNext) {
        if (blank && items.length > 0) isLoose = true;
        const width = item[1].length + item[2].length + Math.min(item[3]?.length ?? 1, 4);
        items.push({ lines: [item[4] ?? ""], width });
        blank = false;
        at += 1;
        continue;
      }
      const current = items.at(-1);
      if (indent(line) >= Math.min(current.width, lead + 2)) {
        if (blank) {
          current.lines.push("");
          isLoose = isLoose || !ITEM.test(line);
        }
        current.lines.push(line.slice(Math.min(current.width, indent(line))));
      } else if (!blank && !interrupts(line) && !item) {
        current.lines.push(line.trimStart());
      } else {
        break;
      }
      blank = false;
      at += 1;
    }
    return {
      kind: "list", end: at, isOrdered, isLoose, start: isOrdered ? parseInt(first[2], 10) : 1,
      items: items.map((item) => {
        const task = /^\[([ xX])\][ \t]+/.exec(item.lines[0]);
        if (task) item.lines[0] = item.lines[0].slice(task[0].length);
        return { isDone: task ? task[1] !== " " : null, blocks: blocksOf(item.lines, depth + 1) };
      }),
    };
  }

  function cells(line) {
    const inner = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
    const found = [""];
    for (let at = 0; at < inner.length; at += 1) {
      if (inner[at] === "\\" && inner[at + 1] === "|") {
        found[found.length - 1] += "|";
        at += 1;
      } else if (inner[at] === "|") {
        found.push("");
      } else {
        found[found.length - 1] += inner[at];
      }
    }
    return found.map((cell) => cell.trim());
  }

  /** Where a link may lead, else null. */
  function safeUrl(text) {
    try {
      const url = new URL(text);
      return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
    } catch {
      return null;
    }
  }

  function link(href, ...children) {
    return el("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
  }

  /** What a model makes stands in its words as a link to a `data:` URL. */
  const MADE = /!?\[([^[\]\n]{0,200})\]\(data:([a-z]+\/[a-z0-9.+-]{1,100});base64,([A-Za-z0-9+/=]+)\)/g;

  /** A file of an answer: a picture is shown, anything else can be kept. */
  function made(name, url) {
    const isShown = /^data:image\/(png|jpeg|gif|webp|avif);/.test(url);
    if (isShown) return el("img", { src: url, alt: name, class: "made" });
    return el("a", { href: url, download: name, class: "file" }, icon(DOCUMENT), name);
  }

  function withMade(text) {
    const out = [];
    let from = 0;
    for (const found of text.matchAll(MADE)) {
      const [whole, name, type, data] = found;
      out.push(...inline(text.slice(from, found.index), 1), made(name || "file", `data:${type};base64,${data}`));
      from = found.index + whole.length;
    }
    return [...out, ...inline(text.slice(from), 1)];
  }

  function inline(text, depth = 0) {
    if (depth === 0 && text.includes("](data:")) return withMade(text);
    if (text.length > MAX_INLINE || depth > MAX_DEPTH) return [text];
    const out = [];
    let plain = "";
    const dead = new Set();
    const flush = () => {
      if (plain) out.push(plain);
      plain = "";
    };
    const put = (node) => {
      flush();
      out.push(node);
    };
    let at = 0;
    while (at < text.length) {
      const c = text[at];
      if (c === "\\" && at + 1 < text.length) {
        if (text[at + 1] === "\n") put(el("br"));
        else if (/[!-/:-@[-`{-~]/.test(text[at + 1])) plain += text[at + 1];
        else plain += c + text[at + 1];
        at += 2;
        continue;
      }
      if (c === "`") {
        const ticks = /^`+/.exec(text.slice(at, at + 32))[0];
        let end = dead.has(ticks) ? -1 : at + ticks.length;
        while (end !== -1) {
          end = text.indexOf(ticks, end);
          if (end === -1 || (text[end - 1] !== "`" && text[end + ticks.length] !== "`")) break;
          end += 1;
        }
        if (end === -1) {
          dead.add(ticks);
          plain += ticks;
          at += ticks.length;
        } else {
          let code = text.slice(at + ticks.length, end).replaceAll("\n", " ");
          if (/^ .*[^ ].* $/.test(code)) code = code.slice(1, -1);
          put(el("code", {}, code));
          at = end + ticks.length;
        }
        continue;
      }
      if (c === "<") {
        const auto = /^<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/.exec(text.slice(at, at + 2048));
        const href = auto && safeUrl(auto[1]);
        if (href) {
          put(link(href, auto[1].replace(/^mailto:/, "")));
          at += auto[0].length;
          continue;
        }
      }
      if (c === "[" || (c === "!" && text[at + 1] === "[")) {
        const found = linkAt(text, c === "!" ? at + 1 : at, dead);
        if (found) {
          const href = safeUrl(found.url);
          const label = found.label || found.url;
          // Pictures of other hosts are not loaded: they would tell them who reads this.
          const inside = c === "!" ? [label] : inline(label, depth + 1);
          if (href) put(link(href, ...inside));
          else {
            flush();
            out.push(...inside);
          }
          at = found.end;
          continue;
        }
      }
      if (c === "h" && !/\w/.test(text[at - 1] ?? " ")) {
        const bare = /^https?:\/\/[^\s<>"'`]{2,2000}/.exec(text.slice(at, at + 2048));
        if (bare) {
          let url = bare[0].replace(/[.,:;!?*_~]+$/, "");
          while (/[)\]]$/.test(url) && !/[([]/.test(url)) url = url.slice(0, -1);
          const href = safeUrl(url);
          if (href) {
            put(link(href, url));
            at += url.length;
            continue;
          }
        }
      }
      if (c === "*" || c === "_" || (c === "~" && text[at + 1] === "~")) {
        const run = text.slice(at, at + 3).match(c === "*" ? /^\*+/ : c === "_" ? /^_+/ : /^~~/)[0];
        const end = dead.has(run) ? -1 : closing(text, at, run);
        if (end === -1) {
          if (opens(text, at, run)) dead.add(run);
          plain += run;
          at += run.length;
        } else {
          const inside = inline(text.slice(at + run.length, end), depth + 1);
          const made = run === "~~" ? el("del", {}, ...inside) : run.length === 1 ? el("em", {}, ...inside)
            : run.length === 2 ? el("strong", {}, ...inside) : el("strong", {}, el("em", {}, ...inside));
          put(made);
          at = end + run.length;
        }
        continue;
      }
      if (c === "\n") {
        if (/ {2,}$/.test(plain)) {
          plain = plain.trimEnd();
          put(el("br"));
        } else plain = `${plain.trimEnd()}\n`;
        at += 1;
        continue;
      }
      plain += c;
      at += 1;
    }
    flush();
    return out;
  }

  function opens(text, at, run) {
    const [before, after] = [text[at - 1] ?? " ", text[at + run.length] ?? " "];
    return !/\s/.test(after) && !(run[0] === "_" && /\w/.test(before));
  }

  function closing(text, at, run) {
    if (!opens(text, at, run)) return -1;
    let end = at + run.length;
    for (;;) {
      end = text.indexOf(run, end + 1);
      if (end === -1) return -1;
      const [before, after] = [text[end - 1], text[end + run.length] ?? " "];
      const isExact = before !== run[0] && after !== run[0];
      const isWhole = run.length > 1 || isExact;
      if (isWhole && before !== "\\" && !/\s/.test(before) && !(run[0] === "_" && /\w/.test(after))) {
        // Of a longer run, the last ones close.
        if (run.length > 1 && after === run[0]) end += 1;
        return end;
      }
      while (text[end + 1] === run[0]) end += 1;
    }
  }

  function linkAt(text, at, dead) {
    if (dead.has("]")) return null;
    let depth = 0;
    let end = at;
    const most = Math.min(text.length, at + 2000);
    for (; end < most; end += 1) {
      if (text[end] === "\\") end += 1;
      else if (text[end] === "[") depth += 1;
      else if (text[end] === "]" && (depth -= 1) === 0) break;
    }
    if (end >= most) {
      if (most === text.length) dead.add("]");
      return null;
    }
    const rest = /^\((?:<([^<>\n]*)>|([^\s()]*(?:\([^\s()]*\)[^\s()]*)*))(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/
      .exec(text.slice(end + 1, end + 3000));
    if (!rest) return null;
    return { label: text.slice(at + 1, end), url: (rest[1] ?? rest[2]).trim(), end: end + 1 + rest[0].length };
  }

  function drawn(block, isTight = false) {
    switch (block.kind) {
      case "heading": return block.place ? el(`h${block.place}`, {}, ...inline(block.text)) : el("p", {}, el("strong", {}, ...inline(block.text)));
      case "rule": return el("hr");
      case "quote": return el("blockquote", {}, ...block.blocks.map((one) => drawn(one)));
      case "code": return codeBlock(block);
      case "list": {
        const items = block.items.map((item) => {
          const inside = item.blocks.flatMap((one) => {
            const isPlain = one.kind === "text" && !block.isLoose;
            return isPlain ? inline(one.text) : [drawn(one, true)];
          });
          if (item.isDone !== null) {
            const box = el("span", { class: "box", role: "img", "aria-label": item.isDone ? "Done" : "To do" }, item.isDone ? "✓" : "");
            inside.unshift(box, " ");
          }
          return el("li", { class: item.isDone === null ? null : "task" }, ...inside);
        });
        return el(block.isOrdered ? "ol" : "ul", { start: block.isOrdered && block.start !== 1 ? block.start : null }, ...items);
      }
      case "table": {
        const row = (all, tag) => el("tr", {}, ...block.sides.map((side, at) =>
          el(tag, { class: side === "left" ? null : side, scope: tag === "th" ? "col" : null }, ...inline(all[at] ?? ""))));
        return el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Table" },
          el("table", {}, el("thead", {}, row(block.head, "th")), el("tbody", {}, ...block.rows.map((one) => row(one, "td")))));
      }
      default: return el("p", { class: isTight ? "tight" : null }, ...inline(block.text));
    }
  }

  function codeBlock({ language, text }) {
    const copy = el("button", { type: "button", class: "copy", onclick: async () => {
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        copy.textContent = "Not allowed";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 1600);
    } }, "Copy");
    const label = language || "Code";
    return el("div", { class: "code" },
      el("div", { class: "bar" }, el("span", {}, language), copy),
      el("pre", { tabindex: "0", role: "group", "aria-label": label }, el("code", {}, text)));
  }

  /** Shows a text that may have grown: blocks that are as they were stay. */
  function showMarkdown(host, text) {
    const blocks = blocksOf(text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n"), 0);
    // Headings are counted from the page's own on, without gaps, whatever their signs.
    const above = [];
    for (const block of blocks.filter((one) => one.kind === "heading")) {
      while (above.length > 0 && above.at(-1) >= block.level) above.pop();
      above.push(block.level);
      block.place = Math.min(above.length + 1, 6);
    }
    const shown = host.blocks ?? [];
    const kept = blocks.map((block, at) => {
      const before = shown[at];
      if (before && before.kind === block.kind && before.source === block.source && before.place === block.place) return before;
      const node = drawn(block);
      if (before) before.node.replaceWith(node);
      else host.append(node);
      return { kind: block.kind, source: block.source, place: block.place, node };
    });
    for (const gone of shown.slice(blocks.length)) gone.node.remove();
    host.blocks = kept;
  }

  // ---- Calls

  class Fault extends Error {
    constructor(status, code, message, param, after) {
      super(message);
      Object.assign(this, { status, code, param, after });
    }
  }

  async function faultOf(response) {
    let told = {};
    try {
      told = (await response.json()).error ?? {};
    } catch { /* It is none of ours. */ }
    const after = Number(response.headers.get("retry-after")) || 0;
    return new Fault(response.status, told.code, told.message ?? "Something went wrong.", told.param, after);
  }

  async function call(method, path, body, type) {
    const headers = { "x-smithgate-page": isFramed ? "framed" : "page" };
    if (type) headers["content-type"] = type;
    else if (body !== undefined) {
      headers["content-type"] = "application/json";
      body = JSON.stringify(body);
    }
    const response = await fetch(base + path, { method, headers, body, cache: "no-store", credentials: "same-origin" });
    if (response.ok) return response;
    const fault = await faultOf(response);
    if (["unknown_visitor", "password_required"].includes(fault.code)) {
      loadAgain();
    }
    throw fault;
  }

  /** Loads the page again, once: where the browser keeps no cookies, that would never end. */
  function loadAgain() {
    const key = "smithgate-again";
    const last = Number(store("get", key) ?? 0);
    if (Date.now() - last > 10000) {
      store("set", key, String(Date.now()));
      location.reload();
    } else {
      say("This page needs cookies, and your browser does not keep them.");
    }
  }

  function store(how, key, value) {
    try {
      return how === "get" ? sessionStorage.getItem(key) : sessionStorage.setItem(key, value);
    } catch {
      return null;
    }
  }

  const inWords = (fault) => {
    if (!(fault instanceof Fault)) return "The connection was lost. Please try again.";
    if (fault.status === 429) return `That was a lot at once. Please wait ${fault.after || 1} s.`;
    if (fault.status === 413) return "This file is too large.";
    if (fault.status === 404) return "This page is no longer here.";
    if (fault.status >= 500) return "The service is not reachable right now. Please try again.";
    return fault.message;
  };

  function say(text) {
    const place = get("fault") ?? get("refused");
    if (place) place.textContent = text;
  }

  function tell(text) {
    get("told").textContent = text;
  }

  // ---- In a frame

  const close = get("close");
  const leave = () => parent.postMessage({ smithgate: "close" }, "*");
  close?.addEventListener("click", leave);
  if (isFramed) {
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented) leave();
    });
  }

  // ---- The door

  if (locked === "true") {
    get("door").addEventListener("submit", async (event) => {
      event.preventDefault();
      say("");
      const button = event.target.querySelector("button");
      button.disabled = true;
      try {
        await call("POST", "/unlock", { password: get("password").value });
        location.reload();
      } catch (fault) {
        say(fault.code === "wrong_password" ? "That is not the password." : inWords(fault));
        button.disabled = false;
        get("password").select();
      }
    });
    get("password").focus();
    return;
  }

  // ---- The conversation

  const log = get("log");
  const scroller = get("scroll");
  const words = get("words");
  const send = get("send");
  const stop = get("stop");
  const replies = get("replies");
  const title = document.title;
  /** Answers by the run that they are of. */
  const answers = new Map();
  const queue = [];
  let following = 0;
  let isWorking = false;

  const isAtEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
  let sticks = true;
  scroller.addEventListener("scroll", () => {
    sticks = isAtEnd();
    get("down").hidden = sticks;
  }, { passive: true });
  get("down").addEventListener("click", () => {
    sticks = true;
    toEnd();
    words.focus();
  });
  function toEnd() {
    if (sticks) scroller.scrollTop = scroller.scrollHeight;
    get("down").hidden = isAtEnd();
  }

  function refresh() {
    const isEmpty = log.childElementCount === 0;
    get("empty").hidden = !isEmpty;
    get("new").hidden = isEmpty;
    document.body.classList.toggle("begun", !isEmpty);
    const isBusy = following > 0;
    const canSend = words.value.trim() !== "" || files.some((file) => file.word);
    const isSending = files.some((file) => !file.word);
    send.disabled = !canSend || isSending;
    send.hidden = isBusy && !canSend;
    stop.hidden = !isBusy;
    words.style.height = "auto";
    words.style.height = `${Math.min(words.scrollHeight, 220)}px`;
  }

  function addUser(text, sent = []) {
    const files = sent.map((file) => file.preview
      ? el("img", { src: file.preview, alt: file.name, class: "shot" })
      : el("span", { class: "file" }, icon(DOCUMENT), file.name || "file"));
    const body = el("div", { class: "bubble" }, text);
    const article = el("article", { class: "user", "aria-label": "You" },
      files.length > 0 ? el("div", { class: "sent" }, ...files) : null, text ? body : null);
    log.append(article);
    return article;
  }

  const DOCUMENT = "M7 3h7l5 5v13H7zM14 3v5h5";
  const STATES = { running: "Working", asked: "Waits for you", approved: "Approved", done: "Done", failed: "Failed", denied: "Not run", stopped: "Stopped" };
  const SIGNS = {
    running: "M12 4a8 8 0 1 0 8 8", approved: "M6 12.5l4 4 8-9", asked: "M12 4a8 8 0 1 0 0 16a8 8 0 1 0 0-16M12 8v4.5l3 1.8", done: "M6 12.5l4 4 8-9",
    failed: "M7 7l10 10M17 7L7 17", denied: "M6 12h12", stopped: "M8 8h8v8H8z",
  };

  /** An answer: what its parts are, and how they are shown. */
  class Answer {
    constructor(after) {
      this.parts = [];
      this.views = [];
      this.run = null;
      this.status = "waiting";
      this.waits = el("div", { class: "waits" }, el("span"), el("span"), el("span"));
      this.body = el("div", { class: "said" });
      this.note = el("p", { class: "note" });
      this.asks = el("div", { class: "asks" });
      this.note.hidden = true;
      this.article = el("article", { class: "assistant", "aria-label": title, "aria-busy": "true" },
        this.body, this.asks, this.waits, this.note);
      if (after) after.after(this.article);
      else log.append(this.article);
    }

    reset() {
      this.parts = [];
      this.byId = new Map();
    }

    part(key, make) {
      this.byId ??= new Map();
      if (!this.byId.has(key)) {
        const part = make();
        this.byId.set(key, part);
        this.parts.push(part);
      }
      return this.byId.get(key);
    }

    /** Takes a part of the stream. */
    take(event) {
      const tool = () => this.part(`tool ${event.toolCallId}`, () => ({ type: "tool", id: event.toolCallId, name: event.toolName ?? "", input: "", state: "running" }));
      switch (event.type) {
        case "start":
          this.reset();
          this.run = event.messageMetadata?.runId ?? this.run;
          this.status = "running";
          break;
        case "text-start": case "reasoning-start": {
          const type = event.type.split("-")[0];
          this.part(event.id, () => ({ type, text: "", isOpen: true }));
          break;
        }
        case "text-delta": case "reasoning-delta": {
          const part = this.part(event.id, () => ({ type: event.type.split("-")[0], text: "" }));
          part.text += event.delta;
          break;
        }
        case "text-end": case "reasoning-end": {
          const part = this.byId?.get(event.id);
          if (part) part.isOpen = false;
          break;
        }
        case "tool-input-start": tool().name = event.toolName; break;
        case "tool-input-delta": tool().input += event.inputTextDelta; break;
        case "tool-input-available": {
          const part = tool();
          part.name = event.toolName;
          const hasInput = event.input && Object.keys(event.input).length > 0;
          if (hasInput) part.input = JSON.stringify(event.input, null, 2);
          break;
        }
        case "tool-approval-request": tool().state = "asked"; break;
        case "tool-output-available": Object.assign(tool(), { state: "done", output: asText(event.output) }); break;
        case "tool-output-error": Object.assign(tool(), { state: "failed", output: event.errorText }); break;
        case "tool-output-denied": tool().state = "denied"; break;
        case "source-url": case "source-document": {
          const sources = this.part("sources", () => ({ type: "sources", all: [] }));
          sources.all.push({ url: event.url, title: event.title || event.filename || event.url });
          break;
        }
        case "finish": this.status = event.finishReason === "tool-calls" ? "asks" : event.finishReason === "error" ? "failed" : "done"; break;
        case "abort": this.status = "stopped"; break;
        case "error": this.status = "failed"; break;
        default: break;
      }
      this.draw();
    }

    draw() {
      if (this.planned) return;
      this.planned = requestAnimationFrame(() => this.drawNow());
    }

    drawNow() {
      this.planned = null;
      this.parts.forEach((part, at) => {
        let view = this.views[at];
        if (!view || view.type !== part.type) {
          const made = VIEWS[part.type](part);
          if (view) view.node.replaceWith(made.node);
          else this.body.append(made.node);
          view = this.views[at] = { type: part.type, ...made };
        }
        view.show(part, this);
      });
      for (const gone of this.views.splice(this.parts.length)) gone.node.remove();
      const isOver = !["waiting", "running"].includes(this.status);
      const last = this.parts.at(-1);
      const isSpeaking = last?.type === "text" && last.isOpen;
      this.waits.hidden = isOver || isSpeaking;
      this.article.setAttribute("aria-busy", String(!isOver));
      this.article.classList.toggle("speaking", !isOver && isSpeaking);
      const notes = { failed: this.fault ?? "Something went wrong, and the answer ends here.", stopped: "Stopped." };
      this.note.textContent = notes[this.status] ?? "";
      this.note.hidden = !notes[this.status];
      this.note.classList.toggle("fault", this.status === "failed");
      toEnd();
    }

    text() {
      this.drawNow();
      return [...this.body.querySelectorAll(":scope > .prose")].map((one) => one.innerText).join("\n");
    }
  }

  const asText = (value) => typeof value === "string" ? value : JSON.stringify(value, null, 2);

  function pretty(text) {
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      return text;
    }
  }

  const VIEWS = {
    text() {
      const node = el("div", { class: "prose" });
      let shown = null;
      return { node, show: (part) => {
        if (shown !== part.text) showMarkdown(node, part.text);
        shown = part.text;
      } };
    },
    reasoning() {
      const label = el("span", {}, "Thinking");
      const text = el("div", { class: "thought" });
      const node = el("details", { class: "step" }, el("summary", {}, icon("M12 4a6 6 0 0 0-3 11v3h6v-3a6 6 0 0 0-3-11M10 21h4"), label), text);
      return { node, show: (part, answer) => {
        const goes = part.isOpen && answer.status === "running";
        label.textContent = goes ? "Thinking…" : "Thought about it";
        node.classList.toggle("goes", goes);
        if (text.textContent !== part.text) text.textContent = part.text;
      } };
    },
    tool() {
      const name = el("code");
      const state = el("span", { class: "state" });
      const sign = el("span", { class: "sign" });
      const input = el("pre", { tabindex: "0", role: "group", "aria-label": "Input" });
      const output = el("pre", { tabindex: "0", role: "group", "aria-label": "Output" });
      const inputs = el("div", { class: "io" }, el("span", { class: "io-label" }, "Input"), input);
      const outputs = el("div", { class: "io" }, el("span", { class: "io-label" }, "Output"), output);
      const node = el("details", { class: "step tool" }, el("summary", {}, sign, name, state), inputs, outputs);
      let was = null;
      return { node, show: (part, answer) => {
        const rests = { done: "done", failed: "failed", stopped: "stopped" }[answer.status];
        const now = ["running", "asked", "approved"].includes(part.state) && rests
          ? (rests === "stopped" ? "stopped" : "denied") : part.state;
        name.textContent = part.name;
        if (was !== now) {
          state.textContent = STATES[now];
          sign.replaceChildren(icon(SIGNS[now]));
          node.dataset.state = now;
          was = now;
        }
        const given = part.input ? pretty(part.input) : "";
        if (input.textContent !== given) input.textContent = given;
        inputs.hidden = given === "" || given === "{}";
        const gave = part.output ?? "";
        if (output.textContent !== gave) output.textContent = gave;
        outputs.hidden = gave === "";
        node.classList.toggle("bare", inputs.hidden && outputs.hidden);
      } };
    },
    file(part) {
      const shown = part.url ? made(part.name, part.url) : el("span", {}, `${part.name} is too large to be shown here.`);
      return { node: el("div", { class: "given" }, shown), show: () => {} };
    },
    sources() {
      const list = el("ul");
      const node = el("div", { class: "sources" }, el("p", {}, "Sources"), list);
      let count = 0;
      return { node, show: (part) => {
        for (const source of part.all.slice(count)) {
          const href = source.url && safeUrl(source.url);
          list.append(el("li", {}, href ? link(href, source.title) : source.title));
        }
        count = part.all.length;
      } };
    },
  };

  // ---- Following an answer

  async function* eventsOf(response) {
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const events = rest.split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
        if (data && data !== "[DONE]") yield JSON.parse(data);
      }
      if (done) return;
    }
  }

  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  /** Follows a turn or a run to its rest; comes back when the connection breaks. */
  async function follow(answer, what) {
    following += 1;
    refresh();
    const isNew = !what.run;
    if (isNew) tell("Answering");
    let tries = 0;
    try {
      for (;;) {
        let isOver = false;
        try {
          const query = answer.run ? { run: answer.run } : what;
          const response = await call("GET", `/stream?${new URLSearchParams(query)}`);
          for await (const event of eventsOf(response)) {
            if (event.type === "start" && !claim(answer, event.messageMetadata?.runId)) return;
            if (event.type === "error") answer.fault = event.errorText;
            answer.take(event);
            isOver = ["finish", "abort", "error"].includes(event.type);
            if (!isOver) tries = 0;
          }
        } catch (fault) {
          if (fault instanceof Fault && fault.status < 500 && fault.status !== 429) {
            answer.status = "failed";
            answer.fault = inWords(fault);
            isOver = true;
          }
        }
        if (isOver) break;
        tries += 1;
        if (tries > 8) {
          answer.status = "failed";
          answer.fault = "The connection was lost. Load the page again to see the rest.";
          break;
        }
        await pause(Math.min(400 * 2 ** tries, 10000));
      }
    } finally {
      following -= 1;
      answer.draw();
      refresh();
    }
    if (answer.status === "failed") tell(answer.fault ?? "The answer failed");
    else if (answer.status === "done") tell(answer.text().slice(0, 2000) || "Done");
    await settle(answer);
  }

  /** Whether an answer is the one of its run: of several messages that one run answers, the last has it. */
  function claim(answer, run) {
    const known = run && answers.get(run);
    if (known && known !== answer) {
      answer.article.remove();
      return false;
    }
    if (run) answers.set(run, answer);
    return true;
  }

  async function settle(answer) {
    try {
      const state = await (await call("GET", "/state")).json();
      showApprovals(answer, state.approvals);
      showReplies(state.replies);
      if (state.run === answer.run) {
        (state.files ?? []).forEach((file, at) => answer.part(`given ${at}`, () => file));
        answer.draw();
      }
    } catch { /* It shows when the page is loaded again. */ }
    toEnd();
  }

  async function work() {
    if (isWorking) return;
    isWorking = true;
    while (queue.length > 0) {
      const { answer, turn } = queue.shift();
      await follow(answer, { turn });
    }
    isWorking = false;
  }

  // ---- Decisions

  function showApprovals(answer, approvals) {
    const pending = new Set((approvals ?? []).map((one) => one.id));
    for (const one of [...answer.asks.children]) {
      if (!one.classList.contains("settled") && !pending.has(one.dataset.id)) one.remove();
    }
    // What was approved shows as a step by then.
    if (pending.size === 0) answer.asks.querySelectorAll(":scope > .settled:not(.no)").forEach((one) => one.remove());
    const known = new Set([...answer.asks.children].map((one) => one.dataset.id));
    for (const approval of approvals ?? []) {
      if (known.has(approval.id)) continue;
      answer.asks.append(approval.question ? questionCard(answer, approval) : approvalCard(answer, approval));
      tell(approval.question ? `A question: ${approval.question.message}` : `May ${approval.tool} be used? A decision is needed.`);
    }
  }

  function card(approval, heading, ...children) {
    const id = `ask-${approval.id}`;
    return el("section", { class: "ask", "data-id": approval.id, "aria-labelledby": id },
      el("h2", { id }, heading), ...children, el("p", { class: "fault", role: "alert" }));
  }

  function approvalCard(answer, approval) {
    const given = JSON.stringify(approval.input ?? {}, null, 2);
    const made = card(approval, "May this be done?",
      el("p", {}, "I would like to use ", el("code", {}, approval.tool ?? "a tool"), given === "{}" ? "." : " with:"),
      given === "{}" ? null : el("pre", { tabindex: "0", role: "group", "aria-label": "Input" }, given),
      el("div", { class: "choice" },
        el("button", { type: "button", class: "main", onclick: () => decide(answer, made, approval, true) }, "Approve"),
        el("button", { type: "button", onclick: () => decide(answer, made, approval, false) }, "Reject")));
    return made;
  }

  async function decide(answer, made, approval, approve, content) {
    const buttons = made.querySelectorAll("button, input, select, textarea");
    const fault = made.querySelector(":scope > .fault");
    fault.textContent = "";
    for (const button of buttons) button.disabled = true;
    try {
      await call("POST", "/decide", { approval_id: approval.id, approve, content });
      const word = approval.question ? (approve ? "Answered" : "Declined") : (approve ? "Approved" : "Rejected");
      settled(made, approval, word, approve);
    } catch (error) {
      if (error instanceof Fault && error.status === 409) {
        settled(made, approval, "Decided before", approve);
      } else {
        fault.textContent = inWords(error);
        for (const button of buttons) button.disabled = false;
        return;
      }
    }
    words.focus();
    const part = answer.byId?.get(`tool ${approval.call}`);
    if (part) part.state = approve ? "approved" : "denied";
    // One rejection ends the run; what is approved waits for the rest.
    const isLast = [...answer.asks.children].every((one) => one.classList.contains("settled"));
    if (isLast || !approve) answer.status = "running";
    answer.draw();
    if (isLast || !approve) await follow(answer, { run: answer.run });
  }

  function settled(made, approval, word, approve) {
    made.classList.add("settled");
    made.classList.toggle("no", !approve);
    made.replaceChildren(icon(approve ? SIGNS.done : SIGNS.failed), el("span", {}, `${word}: `, el("code", {}, approval.tool ?? "a question")));
    made.removeAttribute("aria-labelledby");
    made.setAttribute("aria-label", word);
    tell(word);
  }

  function questionCard(answer, approval) {
    const { message, schema } = approval.question;
    const required = new Set(schema?.required ?? []);
    const fields = Object.entries(schema?.properties ?? {}).slice(0, 60)
      .map(([name, of], at) => field(`${approval.id}-${at}`, name, of ?? {}, required.has(name)));
    const form = el("form", { onsubmit: (event) => {
      event.preventDefault();
      const content = {};
      for (const one of fields) {
        const value = one.read();
        if (value !== undefined) content[one.name] = value;
      }
      decide(answer, made, approval, true, content);
    } }, ...fields.map((one) => one.node), el("div", { class: "choice" },
      el("button", { class: "main" }, "Send"),
      el("button", { type: "button", onclick: () => decide(answer, made, approval, false) }, "Decline")));
    const made = card(approval, message || "A question", form);
    return made;
  }

  const kindOf = (of) => (Array.isArray(of.type) ? of.type.find((one) => one !== "null") : of.type) ?? "string";

  function choicesOf(of) {
    const titled = of.oneOf ?? of.anyOf;
    if (Array.isArray(titled)) return titled.filter((one) => typeof one?.const === "string").map((one) => [one.const, one.title ?? one.const]);
    return (of.enum ?? []).map((value, at) => [String(value), of.enumNames?.[at] ?? String(value)]);
  }

  function field(id, name, of, isRequired) {
    const kind = kindOf(of);
    const label = of.title || name;
    const about = of.description ? el("p", { class: "hint", id: `${id}-hint` }, of.description) : null;
    const described = about ? `${id}-hint` : null;
    const mark = isRequired ? null : el("span", { class: "faint" }, " (optional)");
    const choices = choicesOf(kind === "array" ? of.items ?? {} : of);
    const shared = { id, name, required: isRequired, "aria-describedby": described };
    if (kind === "array") {
      const usual = Array.isArray(of.default) ? of.default : [];
      const boxes = choices.map(([value, text], at) => {
        const box = el("input", { type: "checkbox", id: `${id}-${at}`, value, checked: usual.includes(value) });
        return { box, node: el("div", { class: "tick" }, box, el("label", { for: `${id}-${at}` }, text)) };
      });
      const node = el("fieldset", { class: "field", "aria-describedby": described }, el("legend", {}, label, mark), about, ...boxes.map((one) => one.node));
      return { name, node, read: () => boxes.filter((one) => one.box.checked).map((one) => one.box.value) };
    }
    if (kind === "boolean") {
      const box = el("input", { ...shared, required: false, type: "checkbox", checked: of.default === true });
      return { name, node: el("div", { class: "field" }, el("div", { class: "tick" }, box, el("label", { for: id }, label)), about), read: () => box.checked };
    }
    let input;
    if (choices.length > 0) {
      const usual = of.default === undefined ? "" : String(of.default);
      input = el("select", shared, ...(isRequired && usual ? [] : [el("option", { value: "" }, "Choose")]),
        ...choices.map(([value, text]) => el("option", { value, selected: value === usual }, text)));
    } else if (kind === "string" && of.maxLength > 200) {
      input = el("textarea", { ...shared, rows: 4, minlength: of.minLength, maxlength: of.maxLength }, of.default ?? "");
    } else {
      const isNumber = kind === "number" || kind === "integer";
      const types = { email: "email", uri: "url", date: "date", "date-time": "datetime-local" };
      input = el("input", { ...shared, type: isNumber ? "number" : types[of.format] ?? "text", value: of.default,
        step: kind === "integer" ? 1 : isNumber ? "any" : null, min: of.minimum, max: of.maximum, minlength: of.minLength, maxlength: of.maxLength });
    }
    const read = () => {
      const value = input.value;
      if (value.trim() === "") return undefined;
      if (kind === "integer" || kind === "number") return Number(value);
      if (of.enum) return of.enum.find((one) => String(one) === value) ?? value;
      return of.format === "date-time" ? new Date(value).toISOString() : value;
    };
    return { name, node: el("div", { class: "field" }, el("label", { for: id }, label, mark), input, about), read };
  }

  // ---- Replies that are suggested

  function showReplies(all) {
    replies.replaceChildren(...(all ?? []).slice(0, 6).map((text) =>
      el("button", { type: "button", class: "chip", onclick: () => submit(String(text)) }, String(text))));
    replies.hidden = replies.childElementCount === 0;
  }
  for (const chip of document.querySelectorAll("[data-say]")) {
    chip.addEventListener("click", () => submit(chip.dataset.say));
  }

  // ---- Files

  const files = [];
  const filesPlace = get("files");
  const picked = get("picked");
  const most = Number(maxFile);

  function showFiles() {
    filesPlace.hidden = files.length === 0;
    filesPlace.replaceChildren(...files.map((file) => el("span", { class: file.word ? "file" : "file goes" },
      file.preview ? el("img", { src: file.preview, alt: "" }) : icon(DOCUMENT), el("span", { class: "name" }, file.name),
      el("button", { type: "button", class: "plain", title: "Remove", onclick: () => {
        files.splice(files.indexOf(file), 1);
        showFiles();
        words.focus();
      } }, icon("M7 7l10 10M17 7L7 17"), el("span", { class: "unseen" }, `Remove ${file.name}`)))));
    refresh();
  }

  async function addFile(content) {
    if (files.length >= 10) return say("At most ten files at once.");
    if (content.size > most) return say(`Files may have at most ${Math.floor(most / 1048576)} MB.`);
    say("");
    const isImage = /^image\/(png|jpeg|gif|webp|avif)$/.test(content.type);
    const file = { name: content.name || "file", preview: isImage ? URL.createObjectURL(content) : null, word: null };
    files.push(file);
    showFiles();
    try {
      const query = new URLSearchParams({ name: file.name });
      const taken = await call("POST", `/files?${query}`, content, content.type || "application/octet-stream");
      file.word = (await taken.json()).file;
      tell(`${file.name} is added`);
    } catch (fault) {
      files.splice(files.indexOf(file), 1);
      say(inWords(fault));
    }
    showFiles();
  }

  if (picked) {
    get("attach").addEventListener("click", () => picked.click());
    picked.addEventListener("change", () => {
      for (const file of picked.files) addFile(file);
      picked.value = "";
    });
    words.addEventListener("paste", (event) => {
      const pasted = [...event.clipboardData.files];
      if (pasted.length > 0) event.preventDefault();
      pasted.forEach(addFile);
    });
    const over = (is) => (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      document.body.classList.toggle("drop", is);
      if (event.type === "drop") [...event.dataTransfer.files].forEach(addFile);
    };
    document.addEventListener("dragover", over(true));
    document.addEventListener("dragleave", over(false));
    document.addEventListener("drop", over(false));
  }

  // ---- Sending

  const newId = () => {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  };

  async function submit(text) {
    const isTyped = text === undefined;
    const said = (isTyped ? words.value : text).trim();
    const sent = isTyped ? files.filter((file) => file.word) : [];
    if (said === "" && sent.length === 0) return;
    say("");
    if (isTyped) {
      words.value = "";
      files.length = 0;
      showFiles();
    }
    showReplies([]);
    const article = addUser(said, sent);
    const answer = new Answer(article);
    sticks = true;
    toEnd();
    refresh();
    words.focus();
    const body = { id: newId(), text: said, files: sent.map((file) => file.word) };
    for (let tries = 0; ; tries += 1) {
      try {
        // The same name each time, so that it is answered once however often it is sent.
        const kept = await (await call("POST", "/messages", body)).json();
        if (kept.turn === null) return location.reload();
        queue.push({ answer, turn: kept.turn });
        return work();
      } catch (fault) {
        const mayWork = !(fault instanceof Fault) || fault.status >= 500;
        if (mayWork && tries < 3) {
          await pause(500 * 2 ** tries);
          continue;
        }
        article.remove();
        answer.article.remove();
        say(inWords(fault));
        if (isTyped && words.value === "") {
          words.value = said;
          files.push(...sent);
          showFiles();
        }
        refresh();
        return;
      }
    }
  }

  get("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!send.disabled) submit();
  });
  words.addEventListener("input", refresh);
  words.addEventListener("keydown", (event) => {
    const isPhone = matchMedia("(pointer: coarse)").matches;
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !isPhone) {
      event.preventDefault();
      if (!send.disabled) submit();
    }
    if (event.key === "Escape" && following > 0) {
      event.preventDefault();
      stop.click();
    }
  });
  stop.addEventListener("click", async () => {
    stop.disabled = true;
    try {
      await call("POST", "/stop", {});
    } catch (fault) {
      say(inWords(fault));
    }
    stop.disabled = false;
    words.focus();
  });
  get("new").addEventListener("click", async () => {
    try {
      await call("POST", "/new", {});
      location.reload();
    } catch (fault) {
      say(inWords(fault));
    }
  });

  // ---- What was said before

  async function begin() {
    let said;
    try {
      said = await (await call("GET", "/messages")).json();
    } catch (fault) {
      say(inWords(fault));
      refresh();
      return;
    }
    const replays = [];
    let last = null;
    for (const message of said.messages) {
      if (message.role === "user") {
        addUser(message.text, message.files);
        continue;
      }
      const answer = new Answer();
      answer.run = message.run;
      answers.set(message.run, answer);
      last = answer;
      answer.parts = message.parts.map((part) => part.type === "tool" ? { state: "running", ...part } : part);
      answer.status = message.status === "completed" ? "done" : "running";
      if (message.replay) replays.push(answer);
      answer.drawNow();
    }
    if (last) {
      showApprovals(last, said.approvals);
      showReplies(said.replies);
    }
    for (const { turn, messages } of said.waiting) {
      let article = null;
      for (const message of messages) article = addUser(message.text, message.files);
      queue.push({ answer: new Answer(article), turn });
    }
    refresh();
    toEnd();
    if (!matchMedia("(pointer: coarse)").matches && !isFramed) words.focus();
    // Those that have ended are there at once; the last may still be under way.
    for (const answer of replays) {
      const done = follow(answer, { run: answer.run });
      if (answer !== last) await done;
    }
    work();
  }

  begin();
})();
