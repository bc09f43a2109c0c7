// Rehue's HTTP API, as the page uses it.

/** An error to show: RFC 9457's title and detail, status, request id and Retry-After in seconds. */
export class Problem extends Error {
  constructor(title, detail, { status = 0, request = "", retryAfter = 0 } = {}) {
    super(detail);
    Object.assign(this, { title, detail, status, request, retryAfter });
  }

  /** Whether the same request may succeed later: the server is busy or starting. */
  get isTemporary() { return this.status === 429 || this.status === 503; }
}

/**
 * Colorize a photograph.
 * @param {Blob} file the encoded photograph
 * @param {Object} request the API's parameters
 * @param {Object} options key: API key; signal: AbortSignal; onProgress(share sent, 0 to 1)
 * @returns {Promise<Object>} picture (Blob), model, pages ("in the picture/in the file"),
 *   dropped ("xmp, iptc"), stages, duration in ms
 */
export function colorize(file, request, { key, signal, onProgress }) {
  const start = performance.now();
  const exchange = new XMLHttpRequest(); // fetch does not report the progress of uploads
  const { hints, ...parameters } = request; // a hundred hints are too long for a URL
  exchange.open("POST", `v1/colorize?${new URLSearchParams(parameters)}`);
  exchange.responseType = "blob";
  if (!hints) exchange.setRequestHeader("Content-Type", file.type || "application/octet-stream");
  if (key) exchange.setRequestHeader("Authorization", `Bearer ${key}`);
  exchange.upload.addEventListener("progress", ({ loaded, total }) => onProgress(loaded / total));
  exchange.upload.addEventListener("load", () => onProgress(1));
  signal.addEventListener("abort", () => exchange.abort());
  return new Promise((resolve, reject) => {
    exchange.addEventListener("load", () => {
      if (exchange.status === 200) resolve(readAnswer(exchange, performance.now() - start));
      else readProblem(exchange).then(reject);
    });
    exchange.addEventListener("error", () => reject(new Problem(
      "The server cannot be reached", "Is it running? Your photograph is not lost: try again.")));
    exchange.addEventListener("abort", () => reject(new DOMException("Cancelled", "AbortError")));
    exchange.send(hints ? buildForm(file, hints) : file);
  });
}

function buildForm(file, hints) {
  const form = new FormData();
  form.append("image", file, file.name || "photograph");
  form.append("hints", hints);
  return form;
}

function readAnswer(exchange, duration) {
  const timing = exchange.getResponseHeader("Server-Timing") ?? "";
  return {
    picture: exchange.response,
    model: exchange.getResponseHeader("X-Rehue-Model") ?? "",
    pages: exchange.getResponseHeader("X-Rehue-Pages") ?? "1/1",
    dropped: exchange.getResponseHeader("X-Rehue-Dropped") ?? "",
    stages: [...timing.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, ms]) => [name, Number(ms)]),
    duration,
  };
}

async function readProblem(exchange) {
  const problem = await exchange.response.text().then(JSON.parse).catch(() => ({}));
  // The API's detail for 401 names a header, which is of no use on the page.
  const keyHint = exchange.status === 401 && "Enter the key that you were given under “Your key”.";
  return new Problem(
    keyHint ? "This server needs a key" : problem.title ?? "The server failed",
    keyHint || (problem.detail ?? `It answered with status ${exchange.status}.`),
    {
      status: exchange.status,
      request: problem.request_id ?? exchange.getResponseHeader("X-Request-Id") ?? "",
      retryAfter: Number(exchange.getResponseHeader("Retry-After")) || 0,
    },
  );
}

/** List the models. Null: the server cannot be reached, or requires a key (calls `onKeyNeeded`). */
export async function listModels(key, onKeyNeeded) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch("v1/models", { headers }).catch(() => null);
  if (answer?.status === 401) onKeyNeeded();
  return answer?.ok ? (await answer.json()).models : null;
}
