// Runs requests for photographs, a few at a time, and retries while the server is busy.

import { colorize } from "./api.js";
import { getKey } from "./photograph.js";

const IN_FLIGHT = 2; // one is sent while the other is colorized
const TRIES = 6;

export class Requests extends EventTarget {
  #waiting = [];
  #running = new Set();
  #getApiKey;

  /**
   * Dispatches "change" with the photograph as `detail` when its state changes.
   * @param {function(): string} getApiKey
   */
  constructor(getApiKey) {
    super();
    this.#getApiKey = getApiKey;
  }

  get inProgress() { return this.#waiting.length + this.#running.size; }

  /**
   * Request an answer, unless it has arrived or is requested already.
   * @param {boolean} first whether to run it before all waiting requests
   * @throws {Problem|DOMException} AbortError: cancelled
   */
  ask(photograph, request, { first = false } = {}) {
    const answer = photograph.getAnswer(request);
    if (answer) return Promise.resolve(answer);
    const key = getKey(request);
    const known = this.#list(photograph).find((job) => job.key === key);
    if (known) return known.promise;
    const job = { photograph, request, key, controller: new AbortController() };
    job.promise = new Promise((resolve, reject) => Object.assign(job, { resolve, reject }));
    job.promise.catch(() => {}); // the caller may no longer be listening
    this.#waiting[first ? "unshift" : "push"](job);
    this.#report(job, "waiting");
    this.#startNext();
    return job.promise;
  }

  /** Cancel the requests for a photograph, or all. */
  cancel(photograph) {
    const [ended, kept] = [[], []];
    for (const job of this.#waiting) {
      (!photograph || job.photograph === photograph ? ended : kept).push(job);
    }
    this.#waiting = kept;
    for (const job of this.#running) {
      if (!photograph || job.photograph === photograph) job.controller.abort();
    }
    for (const job of ended) {
      this.#report(job, "cancelled");
      job.reject(new DOMException("Cancelled", "AbortError"));
    }
  }

  #list(photograph) {
    return [...this.#running, ...this.#waiting].filter(
      (job) => job.photograph === photograph && !job.controller.signal.aborted);
  }

  #startNext() {
    while (this.#running.size < IN_FLIGHT && this.#waiting.length) this.#run(this.#waiting.shift());
  }

  async #run(job) {
    this.#running.add(job);
    try {
      const answer = await this.#colorizePatiently(job);
      job.photograph.addAnswer(job.request, answer);
      this.#end(job, "done");
      job.resolve(job.photograph.getAnswer(job.request));
    } catch (problem) {
      this.#end(job, problem.name === "AbortError" ? "cancelled" : "failed", problem);
      job.reject(problem);
    } finally {
      this.#startNext();
    }
  }

  async #colorizePatiently(job) {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#colorizeOnce(job);
      } catch (problem) {
        if (!problem.isTemporary || tries === TRIES) throw problem;
        const seconds = Math.max(problem.retryAfter, tries);
        this.#report(job, "waiting", `the server is busy, next try in ${seconds} s`);
        await pause(seconds * 1000, job.controller.signal);
      }
    }
  }

  #colorizeOnce(job) {
    this.#report(job, "sending", "sending");
    return colorize(job.photograph.file, job.request, {
      key: this.#getApiKey(),
      signal: job.controller.signal,
      onProgress: (share) => (share < 1
        ? this.#report(job, "sending", `sending ${Math.floor(share * 100)} %`)
        : this.#report(job, "colorizing")),
    });
  }

  #end(job, state, problem = null) {
    this.#running.delete(job);
    if (!this.#list(job.photograph).length) this.#report(job, state, state, problem);
  }

  #report(job, state, note = state, problem = null) {
    const { photograph, controller } = job;
    if (controller.signal.aborted && state !== "cancelled") return;
    Object.assign(photograph, { state, note, problem: state === "failed" ? problem : null });
    this.dispatchEvent(new CustomEvent("change", { detail: photograph }));
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("Cancelled", "AbortError"));
    });
  });
}
