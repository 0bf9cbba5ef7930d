// A page with `useChat` of @ai-sdk/react, straight on the gateway: no server code of its own. What
// was said is kept in the tab, so that the page can be loaded again.

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const { api, token, chat, model } = window.settings;
const kept = JSON.parse(sessionStorage.getItem(chat) ?? "[]");
const transport = new DefaultChatTransport({ api, headers: { authorization: `Bearer ${token}` }, body: { model } });

function Part({ part, decide }) {
  if (part.type === "text") return <span className="text">{part.text}</span>;
  if (part.state === "approval-requested") {
    const answer = (approved) => () => decide({ id: part.approval.id, approved });
    return (
      <span className="asks">
        {`${part.type} ${JSON.stringify(part.input)}?`}
        <button type="button" className="yes" onClick={answer(true)}>Yes</button>
        <button type="button" className="no" onClick={answer(false)}>No</button>
      </span>
    );
  }
  if (part.state === "output-available") return <span className="done">{`${part.type} ${part.output}`}</span>;
  if (part.type.startsWith("tool-")) return <span className="tool">{`${part.type} ${part.state} ${JSON.stringify(part.input)}`}</span>;
  return null;
}

function Chat() {
  const { messages, sendMessage, status, error, addToolApprovalResponse } = useChat({
    id: chat, messages: kept, transport, resume: true,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
  });
  const [input, setInput] = useState("");
  useEffect(() => {
    // The answer under way is not kept: it comes again.
    const whole = status === "ready" ? messages : messages.filter((message) => message.role === "user");
    if (messages.length > 0) sessionStorage.setItem(chat, JSON.stringify(whole));
    const said = messages.filter((message) => message.role === "assistant").at(-1);
    const text = said?.parts.filter((part) => part.type === "text").map((part) => part.text).join("");
    (window.seen ??= []).push(text ?? "");
  }, [messages, status]);
  return (
    <form onSubmit={(event) => { event.preventDefault(); sendMessage({ text: input }); setInput(""); }}>
      {messages.map((message) => (
        <p key={message.id} className={message.role}>{message.parts.map((part, at) => <Part key={at} part={part} decide={addToolApprovalResponse} />)}</p>
      ))}
      <input value={input} onChange={(event) => setInput(event.target.value)} />
      <output id="status">{status}</output>
      <output id="error">{error?.message}</output>
    </form>
  );
}

createRoot(document.getElementById("root")).render(<Chat />);
