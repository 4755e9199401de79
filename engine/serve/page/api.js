/* The service's REST (docs/protocol.md). Every refusal is a ServiceError that says what to do. */

const ROOT = "/api/v1";

export class ServiceError extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

export const address = (path) => ROOT + path;

export const liveAddress = (id) =>
  `${location.origin.replace(/^http/, "ws")}${ROOT}/sessions/${encodeURIComponent(id)}/live`;

/** Ask for a path; `json` is sent as such. Raises ServiceError. */
export async function ask(path, { json, headers, ...options } = {}) {
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    headers = { "Content-Type": "application/json", ...headers };
  }
  const answer = await fetch(ROOT + path, { method: options.body ? "POST" : "GET", ...options, headers })
    .catch(() => { throw new ServiceError(0, "away", "The service does not answer."); });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  const wait = answer.headers.get("Retry-After");
  const more = answer.status === 429 && wait ? ` Try again in ${wait} s.` : "";
  throw new ServiceError(answer.status, error?.code ?? "internal", (error?.message ?? answer.statusText) + more);
}

/** Ask, and hand on every server-sent event as (name, data) until the stream ends. */
export async function stream(path, json, each) {
  const answer = await ask(path, { json, headers: { Accept: "text/event-stream" } });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = "", part; !(part = await reader.read()).done;) {
    const events = (text + part.value.replaceAll("\r", "")).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const field = (name) => event.split("\n").filter((line) => line.startsWith(`${name}:`))
        .map((line) => line.slice(name.length + 1).trim()).join("\n");
      if (field("data")) each(field("event"), JSON.parse(field("data")));
    }
  }
}
