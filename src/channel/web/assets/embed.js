// Puts a chat page on another site: a bubble, and the page in a frame behind it.
//
//   <script src="https://gateway.example/hosted/dep_…/embed.js" data-label="Ask us" async></script>
//
// data-label: what the bubble says to those who can't see it. data-side: left or right (the default).
// data-open: opens at once. Other scripts may call window.smithgate.open() and .close().
"use strict";

(() => {
  const settings = /*settings*/{};
  const script = document.currentScript;
  if (!script || window.smithgate) return;
  const origin = new URL(script.src).origin;
  const side = script.dataset.side === "left" ? "left" : "right";
  const label = script.dataset.label || settings.title;

  const style = `
    :host { all: initial; }
    button { position: fixed; z-index: 2147483000; bottom: 20px; ${side}: 20px; width: 56px; height: 56px;
      display: grid; place-items: center; padding: 0; border: 0; border-radius: 50%; cursor: pointer;
      background: ${settings.accent}; color: ${settings.on};
      box-shadow: 0 2px 6px rgb(0 0 0 / 18%), 0 10px 30px rgb(0 0 0 / 20%); transition: transform 140ms; }
    button:hover { transform: scale(1.05); }
    button:focus-visible { outline: 3px solid ${settings.accent}; outline-offset: 3px; }
    svg { width: 26px; height: 26px; fill: none; stroke: currentcolor; stroke-width: 1.8;
      stroke-linecap: round; stroke-linejoin: round; }
    iframe { position: fixed; z-index: 2147483000; bottom: 88px; ${side}: 20px; width: 400px;
      max-width: calc(100vw - 40px); height: 640px; max-height: calc(100dvh - 108px); border: 0;
      border-radius: 18px; background: Canvas; color-scheme: normal;
      box-shadow: 0 2px 8px rgb(0 0 0 / 14%), 0 18px 60px rgb(0 0 0 / 24%); }
    iframe[hidden] { display: none; }
    @media (max-width: 480px) {
      iframe { inset: 0; width: 100vw; max-width: none; height: 100dvh; max-height: none; border-radius: 0; }
      .open { display: none; }
    }
    @media (prefers-reduced-motion: reduce) { button { transition: none; } }`;

  function start() {
    const host = document.createElement("smithgate-chat");
    const root = host.attachShadow({ mode: "closed" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(style);
    root.adoptedStyleSheets = [sheet];

    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS(space, "path");
    svg.append(path);
    const SPEAK = "M4 5.5h16v11h-9l-4.5 4v-4H4z";
    const CLOSE = "M6.5 6.5l11 11M17.5 6.5l-11 11";

    const bubble = document.createElement("button");
    bubble.type = "button";
    bubble.append(svg);
    let frame = null;

    function show(isOpen) {
      if (isOpen && !frame) {
        frame = document.createElement("iframe");
        frame.src = `${origin}/hosted/${settings.page}?embed`;
        frame.title = settings.title;
        frame.allow = "clipboard-write";
        frame.referrerPolicy = "strict-origin";
        root.insertBefore(frame, bubble);
      }
      if (frame) frame.hidden = !isOpen;
      path.setAttribute("d", isOpen ? CLOSE : SPEAK);
      bubble.className = isOpen ? "open" : "";
      bubble.setAttribute("aria-expanded", String(isOpen));
      bubble.setAttribute("aria-label", isOpen ? `${label}: close` : label);
      if (isOpen) frame.focus();
      else bubble.focus({ preventScroll: true });
    }
    const isOpen = () => Boolean(frame) && !frame.hidden;

    bubble.addEventListener("click", () => show(!isOpen()));
    window.addEventListener("message", (event) => {
      const isOurs = frame && event.source === frame.contentWindow && event.origin === origin;
      if (isOurs && event.data?.smithgate === "close") show(false);
    });
    window.smithgate = { open: () => show(true), close: () => show(false) };

    root.append(bubble);
    document.body.append(host);
    path.setAttribute("d", SPEAK);
    bubble.setAttribute("aria-label", label);
    bubble.setAttribute("aria-expanded", "false");
    if (script.dataset.open !== undefined) show(true);
  }

  if (document.body) start();
  else document.addEventListener("DOMContentLoaded", start);
})();
