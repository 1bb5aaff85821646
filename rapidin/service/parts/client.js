// Talking to the service. The token is kept for this tab only.

const TOKEN = "rapidin-token";

/** An error of the service, with its status; 0: it did not answer. */
class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "The service does not answer. Does it still run?");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: { message: response.statusText } }));
  const again = response.headers.get("Retry-After");
  throw new ServiceError(response.status, error.message + (again ? ` (again in ${again} s)` : ""));
}

const getJson = async (path) => (await ask(path)).json();

/** Lines of JSON as they come. */
async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

/** Search: the line with the result; `tell` hears of the lines before it. */
async function fetchReport(asked, signal, tell) {
  const response = await ask("v1/report", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked), signal,
  });
  try {
    for await (const line of linesOf(response)) {
      if (line.event === "report") return line;
      if (line.event === "error") throw new ServiceError(line.status, line.error.message);
      tell(line);
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServiceError) throw error;
  }
  throw new ServiceError(0, "The connection broke before the answer was there. Search again.");
}
