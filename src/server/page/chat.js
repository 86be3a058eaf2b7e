// ---- the chat, through the same paths as any other client
class Chat {
  constructor(session) {
    this.session = session;  // key and model
    this.log = byId("chat-log");
    this.text = byId("chat-text");
    this.send = byId("chat-send");
    this.turns = [];
    byId("chat-form").addEventListener("submit", event => { event.preventDefault(); this.running ? this.stop() : this.ask(); });
    byId("chat-clear").addEventListener("click", () => this.clear());
    this.text.addEventListener("keydown", event => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!this.running) this.ask();
    });
    this.clear();
  }

  clear() {
    this.stop();
    this.turns = [];
    this.log.replaceChildren(html("p", {class: "hint"}, "Ask something, and watch where its cache goes."));
  }

  stop() {
    if (this.running) this.running.abort();
  }

  addTurn(who, text) {
    const hint = this.log.querySelector(".hint");
    if (hint) hint.remove();
    const turn = html("div", {class: "turn " + who}, html("span", {class: "hidden"}, who === "user" ? "You: " : "Model: "),
      html("span", {class: "thought"}), html("span", {class: "said"}, text), html("span", {class: "facts"}));
    this.log.append(turn);
    this.log.scrollTop = this.log.scrollHeight;
    return turn;
  }

  body(text) {
    const common = {model: this.session.model, stream: true, stream_options: {include_usage: true},
      max_tokens: Math.max(1, Math.round(+byId("chat-tokens").value || 256)), temperature: Math.max(0, +byId("chat-temperature").value || 0)};
    if (byId("chat-mode").value === "text") return ["v1/completions", {...common, prompt: text}];
    return ["v1/chat/completions", {...common, messages: this.turns}];
  }

  async ask() {
    const text = this.text.value;
    if (!text.trim()) return;
    this.text.value = "";
    this.turns.push({role: "user", content: text});
    this.addTurn("user", text);
    const turn = this.addTurn("assistant", "");
    turn.classList.add("busy");
    this.log.setAttribute("aria-busy", "true");
    this.running = new AbortController();
    setText(this.send, "Stop");
    const answer = {turn, said: "", start: performance.now(), first: null, last: null, usage: null, reason: null};
    try {
      await this.stream(answer, ...this.body(text));
    } catch (error) {
      if (error.name === "AbortError") answer.reason = "stopped";
      else turn.append(html("span", {class: "wrong", role: "alert"}, error.message));
    }
    if (answer.said) this.turns.push({role: "assistant", content: answer.said});
    else this.turns.pop();
    turn.classList.remove("busy");
    this.log.removeAttribute("aria-busy");
    setText(turn.querySelector(".facts"), this.facts(answer));
    this.running = null;
    setText(this.send, "Send");
  }

  facts(answer) {
    if (answer.first === null) return answer.reason || "";
    const words = ["first token after " + Math.round(answer.first - answer.start) + " ms"];
    const tokens = answer.usage ? answer.usage.completion_tokens : null;
    if (tokens > 1 && answer.last > answer.first) {
      words.push(grouped(tokens) + " tokens", short((tokens - 1) / (answer.last - answer.first) * 1e3) + " tokens/s");
    }
    if (answer.reason) words.push(answer.reason);
    return words.join(" · ");
  }

  async stream(answer, path, body) {
    const response = await fetch(path, {method: "POST", signal: this.running.signal, body: JSON.stringify(body),
      headers: {"Content-Type": "application/json", ...this.session.headers()}});
    if (!response.ok) throw new Error(await errorText(response));
    const reader = response.body.getReader(), decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;
      rest += decoder.decode(value, {stream: true});
      const events = rest.split(/\r?\n\r?\n/);
      rest = events.pop();
      for (const event of events) this.event(answer, event);
    }
  }

  // One server-sent event.
  event(answer, text) {
    const data = text.split(/\r?\n/).filter(line => line.startsWith("data:")).map(line => line.slice(5).trim()).join("\n");
    if (!data || data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message || "the server ended the answer");
    if (chunk.usage) answer.usage = chunk.usage;
    const choice = chunk.choices && chunk.choices[0];
    if (!choice) return;
    if (choice.finish_reason) answer.reason = choice.finish_reason;
    const said = (choice.delta ? choice.delta.content : choice.text) || "";
    const thought = (choice.delta && choice.delta.reasoning_content) || "";
    if (!said && !thought) return;
    answer.last = performance.now();
    if (answer.first === null) answer.first = answer.last;
    answer.said += said;
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
    answer.turn.querySelector(".thought").append(thought);
    answer.turn.querySelector(".said").append(said);
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }
}

// The message of an error body of OpenAI's form, or what else there is.
async function errorText(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch (ignored) {
    return "the server answered " + response.status + " " + response.statusText;
  }
}
