// The form of options: strength, model, format and the access key.

import { listModels } from "./api.js";

const REST = 400; // ms without movement after which the strength slider counts as released
const KEPT_KEY = "rehue-key"; // in the tab's session

export class Options extends EventTarget {
  #form;
  #models = new Map(); // descriptions, by the value of their option
  #rest = 0;

  /** Dispatches "strength" while its slider moves, "change" for a new setting, and "key". */
  constructor(form) {
    super();
    this.#form = form;
    form.addEventListener("submit", (event) => event.preventDefault());
    this.#at("strength").addEventListener("input", () => this.#onStrength());
    for (const id of ["model", "format", "mark"]) {
      this.#at(id).addEventListener("change", () => this.#announce("change"));
    }
    this.#at("model").addEventListener("change", () => this.#describeModel());
    this.#at("key").value = sessionStorage.getItem(KEPT_KEY) ?? "";
    this.#at("keep").checked = Boolean(this.key);
    for (const id of ["key", "keep"]) this.#at(id).addEventListener("change", () => this.#onKey(id));
    this.#showStrength();
  }

  get key() { return this.#at("key").value.trim(); }

  /** Whether a change is meant for all photographs. */
  get isForAll() { return this.#at("all").checked; }
  set hasSeveral(several) { this.#at("for-all").hidden = !several; }

  get settings() {
    return {
      model: this.#at("model").value,
      strength: Number(this.#at("strength").value),
      format: this.#at("format").value,
      mark: this.#at("mark").checked ? "visible" : "none",
    };
  }

  set settings({ model, strength, format, mark }) {
    Object.assign(this.#at("strength"), { value: strength });
    Object.assign(this.#at("model"), { value: model });
    Object.assign(this.#at("format"), { value: format });
    Object.assign(this.#at("mark"), { checked: mark === "visible" });
    this.#showStrength();
    this.#describeModel();
  }

  /** Open the field of the key and focus it. */
  askForKey() {
    this.#at("access").open = true;
    this.#at("key").focus();
  }

  async listModels() {
    const models = await listModels(this.key, () => { this.#at("access").open = true; });
    if (!models) return;
    const chosen = this.#at("model").value;
    const ready = models.filter(({ state }) => state === "READY").sort((a, b) => b.default - a.default);
    this.#models = new Map(ready.map((model) => [model.default ? "" : model.name, model]));
    // Requests for the default model name no model, so their answers stay valid when the list arrives.
    this.#at("model").replaceChildren(...[...this.#models].map(([value, { name }]) =>
      new Option(value ? name : `${name} (default)`, value)));
    this.#at("model").value = this.#models.has(chosen) ? chosen : "";
    this.#describeModel();
  }

  #at(id) { return this.#form.querySelector(`#${id}`); }

  #announce(name) { this.dispatchEvent(new Event(name)); }

  #onStrength() {
    this.#showStrength();
    this.#announce("strength");
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => this.#announce("change"), REST);
  }

  #showStrength() {
    const value = Number(this.#at("strength").value);
    const word = value === 0 ? "gray" : value < 1 ? "paler" : value === 1 ? "natural" : "more vivid";
    this.#at("shown").textContent = value.toFixed(1);
    this.#at("strength").setAttribute("aria-valuetext", `${value.toFixed(1)}, ${word}`);
  }

  #describeModel() {
    const description = this.#models.get(this.#at("model").value)?.description ?? "";
    this.#at("about-model").textContent = description;
    this.#at("about-model").hidden = !description;
  }

  #onKey(id) {
    if (this.#at("keep").checked && this.key) sessionStorage.setItem(KEPT_KEY, this.key);
    else sessionStorage.removeItem(KEPT_KEY);
    if (id !== "key") return;
    this.listModels();
    this.#announce("key");
  }
}
