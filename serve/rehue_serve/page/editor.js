// The editor of a photograph's colours: hints, candidates, warmth, tint and a palette.
//
// It works on a copy of the photograph at screen size. The server keeps the network's output for that
// copy, so that an edit takes milliseconds; the full picture is made when the edits are used.

import { PALETTE_MARKUP, readPalette, showPalette } from "./palette.js";

const LONG_SIDE = 1280; // pixels of the copy
const CANDIDATE_SIDE = 256;
const AROUND = 0.05; // distance, as a share of the sides, at which likely colours are also read
const UNLIKE = 24; // smallest distance in RGB between two suggested colours
const STEP = 0.01; // distance that an arrow key moves the cross, as a share of the sides
const NOTHING = { strength: 1, warmth: 0, tint: 0, hints: [], palette: [], palette_strength: 1, look: "whole" };

const MARKUP = `
  <div class="row spread">
    <h2 id="editor-title">Edit the colours</h2>
    <div class="row">
      <button type="button" class="small" data-do="undo">Undo</button>
      <button type="button" class="small" data-do="redo">Redo</button>
      <button type="button" class="small" data-do="compare" aria-pressed="false">Show without edits</button>
    </div>
  </div>
  <div class="columns">
    <div>
      <div class="picture" tabindex="0" role="group" aria-label="Picture. Arrow keys move the cross, Enter puts a colour there.">
        <img alt="Your photograph with the edits"><i class="cross" aria-hidden="true"></i>
      </div>
      <div class="versions" role="group" aria-label="Versions to start from"></div>
      <button type="button" class="small" data-do="propose">More versions</button>
    </div>
    <div class="side">
      <p class="say" role="status">Click a place to give it a colour.</p>
      <p class="trouble" role="alert"></p>
      <div class="place" hidden>
        <div class="swatches" role="group" aria-label="Likely colours"></div>
        <label>Any other colour <input type="color" data-color value="#808080"></label>
        <button type="button" class="small" data-do="remove">Remove this place</button>
      </div>
      <label>Strength <output></output><input type="range" min="0" max="2" step="0.05" data-value="strength"></label>
      <label>Warmth <output></output><input type="range" min="-1" max="1" step="0.05" data-value="warmth"></label>
      <label>Tint <output></output><input type="range" min="-1" max="1" step="0.05" data-value="tint"></label>
      ${PALETTE_MARKUP}
      <div class="row">
        <button type="button" class="small" data-do="save">Save edits</button>
        <button type="button" class="small" data-do="load">Load edits</button>
        <button type="button" class="small" data-do="clear">Remove all edits</button>
      </div>
      <button type="button" class="button first" data-do="use">Use these colours</button>
      <button type="button" class="button" data-do="cancel">Cancel</button>
      <input type="file" accept=".json,application/json" hidden data-file="edits" aria-label="Saved edits">
    </div>
  </div>`;

export class Editor {
  #dialog = document.createElement("dialog");
  #getApiKey;
  #copy = null; // Blob at screen size
  #model = "";
  #name = "";
  #states = [NOTHING]; // history
  #now = 0; // index of the state that is shown
  #selected = -1; // index of a hint
  #cross = { x: 0.5, y: 0.5 };
  #request = null; // AbortController of the preview in flight
  #versions = []; // canvases of the candidates, from which likely colours are read
  #isPlain = false;
  #resolve = null;

  /** @param {function(): string} getApiKey */
  constructor(getApiKey) {
    this.#getApiKey = getApiKey;
    this.#dialog.id = "editor";
    this.#dialog.setAttribute("aria-labelledby", "editor-title");
    this.#dialog.innerHTML = MARKUP;
    document.body.append(this.#dialog);
    for (const button of this.#dialog.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this.#do(button.dataset.do));
    }
    for (const input of this.#dialog.querySelectorAll("[data-value]")) {
      input.addEventListener("input", () => this.#slide(input));
      input.addEventListener("change", () => this.#slide(input, true));
    }
    this.#at("[data-color]").addEventListener("change", ({ target }) => this.#color(target.value));
    this.#at("[data-file=edits]").addEventListener("change", ({ target }) => this.#load(target));
    this.#at("[data-file=reference]").addEventListener("change", ({ target }) => this.#takePalette(target));
    this.#at(".picture img").addEventListener("click", (event) => this.#click(event));
    this.#at(".picture").addEventListener("keydown", (event) => this.#press(event));
    this.#dialog.addEventListener("close", () => this.#end(null));
  }

  /**
   * Open the editor and wait until the edits are used or cancelled.
   * @param {Blob} picture the photograph, or a picture of it, in a format that the browser shows
   * @param {Object} start initial edits, as a document
   * @param {Object} photograph its model (a parameter of the API) and its name
   * @returns {Promise<Object|null>} the edits as a document; null: cancelled
   */
  async open(picture, start, { model, name }) {
    this.#copy = await shrink(picture, LONG_SIDE);
    [this.#model, this.#name] = [model, name];
    [this.#states, this.#now, this.#selected, this.#versions] = [[{ ...NOTHING, ...start }], 0, -1, []];
    this.#isPlain = false;
    this.#at(".versions").replaceChildren();
    this.#at(".trouble").textContent = "";
    this.#at(".picture img").src = URL.createObjectURL(this.#copy);
    this.#dialog.showModal();
    this.#at(".picture").focus();
    this.#update();
    this.#propose();
    return new Promise((resolve) => { this.#resolve = resolve; });
  }

  get #state() { return this.#states[this.#now]; }

  #at(selector) { return this.#dialog.querySelector(selector); }

  #do(action) {
    const actions = {
      undo: () => this.#go(-1),
      redo: () => this.#go(1),
      compare: () => { this.#isPlain = !this.#isPlain; this.#update(); },
      remove: () => {
        const hints = this.#state.hints.filter((_, index) => index !== this.#selected);
        this.#selected = -1;
        this.#change({ hints });
        this.#at(".picture").focus();
      },
      clear: () => { this.#selected = -1; this.#change({ ...NOTHING }); },
      save: () => this.#save(),
      load: () => this.#at("[data-file=edits]").click(),
      propose: () => this.#propose(true),
      reference: () => this.#at("[data-file=reference]").click(),
      forget: () => { this.#change({ palette: [] }); this.#at("[data-do=reference]").focus(); },
      use: () => this.#end(buildDocument(this.#state)),
      cancel: () => this.#end(null),
    };
    actions[action]();
  }

  #end(edits) {
    this.#request?.abort();
    this.#resolve?.(edits);
    this.#resolve = null;
    if (this.#dialog.open) this.#dialog.close();
  }

  // --- history

  #change(values) {
    this.#states = [...this.#states.slice(0, this.#now + 1), { ...this.#state, ...values }];
    this.#now += 1;
    this.#update();
  }

  #go(steps) {
    this.#now = Math.min(Math.max(this.#now + steps, 0), this.#states.length - 1);
    if (this.#selected >= this.#state.hints.length) this.#selected = -1;
    this.#update();
  }

  /** Preview while a slider moves; add one step to the history when it is released. */
  #slide(input, rests = false) {
    const value = Number(input.value);
    if (rests) this.#change({ [input.dataset.value]: value });
    else this.#preview({ ...this.#state, [input.dataset.value]: value });
    input.parentElement.querySelector("output").textContent = value.toFixed(2);
  }

  // --- places

  #click({ offsetX, offsetY, target }) {
    this.#place(offsetX / target.clientWidth, offsetY / target.clientHeight);
  }

  #press(event) {
    if (event.target !== event.currentTarget) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (move) {
      const [x, y] = move.map((steps) => steps * STEP * (event.shiftKey ? 10 : 1));
      this.#cross = { x: clamp(this.#cross.x + x), y: clamp(this.#cross.y + y) };
      this.#showCross();
    } else if (event.key === "Enter") {
      this.#place(this.#cross.x, this.#cross.y);
    } else return;
    event.preventDefault();
  }

  /** Add a hint with the most likely colour of the point, and suggest others. */
  #place(x, y) {
    [x, y] = [x, y].map((share) => Math.round(clamp(share) * 1e4) / 1e4);
    this.#cross = { x, y };
    const [color] = this.#findLikely(x, y);
    this.#selected = this.#state.hints.length;
    this.#change({ hints: [...this.#state.hints, { x, y, color: color ?? "gray" }] });
    this.#at(".swatch")?.focus();
  }

  #color(color) {
    const hints = this.#state.hints.map((hint, index) => (index === this.#selected ? { ...hint, color } : hint));
    this.#change({ hints });
  }

  /** List the likely colours of a point: those that the versions have there and around it. */
  #findLikely(x, y) {
    const found = [];
    const places = [[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]];
    for (const [right, down] of places) {
      for (const canvas of this.#versions) {
        const color = readColor(canvas, clamp(x + right * AROUND), clamp(y + down * AROUND));
        if (found.every((other) => measureDistance(color, other) > UNLIKE)) found.push(color);
      }
    }
    return found.slice(0, 11).map(formatColor);
  }

  // --- what is shown

  #update() {
    const state = this.#state;
    this.#preview(this.#isPlain ? NOTHING : state);
    for (const input of this.#dialog.querySelectorAll("[data-value]")) {
      input.value = state[input.dataset.value];
      input.parentElement.querySelector("output").textContent = Number(input.value).toFixed(2);
    }
    this.#at("[data-do=undo]").disabled = !this.#now;
    this.#at("[data-do=redo]").disabled = this.#now === this.#states.length - 1;
    this.#at("[data-do=compare]").setAttribute("aria-pressed", this.#isPlain);
    showPalette(this.#at(".palette"), state.palette);
    this.#showPlaces();
    this.#showCross();
  }

  #showPlaces() {
    const { hints } = this.#state;
    for (const dot of this.#dialog.querySelectorAll(".dot")) dot.remove();
    this.#at(".picture").append(...hints.map((hint, index) => {
      const dot = document.createElement("button");
      Object.assign(dot, { type: "button", className: "dot" });
      Object.assign(dot.style, {
        left: `${100 * hint.x}%`, top: `${100 * hint.y}%`,
        background: hint.color === "gray" ? "#808080" : hint.color,
      });
      dot.setAttribute("aria-label", `Place ${index + 1}, ${hint.color}`);
      dot.setAttribute("aria-pressed", index === this.#selected);
      dot.addEventListener("click", () => { this.#selected = index; this.#showPlaces(); this.#at(".swatch").focus(); });
      return dot;
    }));
    const hint = hints[this.#selected];
    this.#at(".place").hidden = !hint;
    this.#at(".say").textContent = hint
      ? `Choose the colour of place ${this.#selected + 1}.` : "Click a place to give it a colour.";
    if (!hint) return;
    const focused = document.activeElement?.dataset?.swatch;
    this.#at(".swatches").replaceChildren(...[...this.#findLikely(hint.x, hint.y), "gray"].map((color) => {
      const swatch = document.createElement("button");
      Object.assign(swatch, { type: "button", className: "swatch", title: color });
      swatch.style.background = color === "gray" ? "#808080" : color;
      swatch.dataset.swatch = color;
      swatch.setAttribute("aria-label", color === "gray" ? "gray: no colour" : color);
      swatch.addEventListener("click", () => this.#color(color));
      return swatch;
    }));
    if (focused) this.#at(`[data-swatch="${focused}"]`)?.focus();
    if (hint.color !== "gray") this.#at("[data-color]").value = hint.color;
  }

  #showCross() {
    Object.assign(this.#at(".cross").style, { left: `${100 * this.#cross.x}%`, top: `${100 * this.#cross.y}%` });
  }

  // --- the server

  /** Request the picture with these edits; only the newest answer is shown. */
  async #preview(state) {
    this.#request?.abort();
    const request = this.#request = new AbortController();
    const fields = { ...buildParameters(state), model: this.#model, format: "jpeg", quality: 88, metadata: "none" };
    const started = performance.now();
    const picture = await this.#ask("v1/colorize", fields, request.signal, (answer) => answer.blob());
    if (!picture || request !== this.#request) return;
    const image = this.#at(".picture img");
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(picture);
    await image.decode().catch(() => {});
    this.#dialog.dataset.milliseconds = Math.round(performance.now() - started);
  }

  #askForVersions(fields) {
    return this.#ask("v1/candidates", { model: this.#model, ...fields }, null, (answer) => answer.json());
  }

  /** @param {boolean} more those of the network's other looks too, which cost further runs of it */
  async #propose(more = false) {
    const copy = this.#copy;
    this.#at("[data-do=propose]").disabled = more;
    const found = await this.#askForVersions({ size: CANDIDATE_SIDE, ...(more && { more_looks: true }) });
    if (copy !== this.#copy) return;
    if (!found) {
      this.#at("[data-do=propose]").disabled = false;
      return;
    }
    const buttons = found.candidates.map(({ name, edits, media_type: type, image: data }) => {
      const image = Object.assign(new Image(), { src: `data:${type};base64,${data}`, alt: "" });
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.append(image, name);
      button.addEventListener("click", () => {
        const { strength, warmth, tint, look } = { ...NOTHING, ...edits };
        this.#change({ strength, warmth, tint, look });
      });
      return { button, image };
    });
    this.#at(".versions").replaceChildren(...buttons.map(({ button }) => button));
    await Promise.all(buttons.map(({ image }) => image.decode().catch(() => {})));
    this.#versions = buttons.map(({ image }) => drawImage(image, image.naturalWidth, image.naturalHeight));
    this.#dialog.dataset.versions = this.#versions.length;
    if (this.#selected >= 0) this.#showPlaces();
  }

  async #ask(path, fields, signal, read) {
    const form = new FormData();
    form.append("image", this.#copy, "photograph.jpg");
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    const key = this.#getApiKey();
    try {
      const headers = key ? { Authorization: `Bearer ${key}` } : {};
      const answer = await fetch(path, { method: "POST", body: form, headers, signal });
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `status ${answer.status}`);
      this.#at(".trouble").textContent = "";
      return await read(answer);
    } catch (error) {
      if (error.name !== "AbortError") this.#at(".trouble").textContent = `This did not work: ${error.message}`;
      return null;
    }
  }

  // --- files

  #save() {
    const text = `${JSON.stringify(buildDocument(this.#state), null, 1)}\n`;
    const href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    Object.assign(document.createElement("a"), { href, download: `${this.#name}-edits.json` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  }

  async #load(input) {
    const [file] = input.files;
    input.value = "";
    try {
      const { version, ...edits } = parseDocument(await file.text());
      this.#selected = -1;
      this.#change({ ...NOTHING, ...edits });
    } catch (error) {
      this.#at(".trouble").textContent = `This file has no saved edits: ${error.message}`;
    }
  }

  async #takePalette(input) {
    const [file] = input.files;
    input.value = "";
    const copy = this.#copy;
    const palette = await readPalette(file, (fields) => this.#askForVersions(fields), shrink);
    if (palette && copy === this.#copy) this.#change({ palette });
  }
}

/** Build the document of docs/how-to/colours.md: the values that are not defaults. */
function buildDocument(state) {
  const changed = Object.entries(state).filter(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(NOTHING[name]));
  return { version: 1, ...Object.fromEntries(changed) };
}

function parseDocument(text) {
  let edits;
  try { edits = JSON.parse(text); } catch { throw new Error("the file is not JSON."); }
  if (edits?.version !== 1) throw new Error("its version is not 1.");
  if (!Array.isArray(edits.hints ?? [])) throw new Error("its hints are not a list.");
  return edits;
}

/** Build the API's parameters from a document, without default values. */
export function buildParameters(edits) {
  const { version, hints, palette, ...numbers } = buildDocument(edits);
  return {
    ...numbers,
    ...(hints && { hints: JSON.stringify(hints) }),
    ...(palette && { palette: palette.join(",") }),
  };
}

async function shrink(picture, longSide) {
  const bitmap = await createImageBitmap(picture);
  const scale = Math.min(1, longSide / Math.max(bitmap.width, bitmap.height));
  const canvas = drawImage(bitmap, Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.92); });
}

function drawImage(image, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return canvas;
}

function readColor(canvas, x, y) {
  const [column, row] = [Math.min(canvas.width - 1, x * canvas.width), Math.min(canvas.height - 1, y * canvas.height)];
  return [...canvas.getContext("2d").getImageData(Math.floor(column), Math.floor(row), 1, 1).data.slice(0, 3)];
}

function measureDistance(color, other) { return Math.hypot(...color.map((value, index) => value - other[index])); }

function formatColor(color) { return `#${color.map((value) => value.toString(16).padStart(2, "0")).join("")}`; }

function clamp(share) { return Math.min(Math.max(share, 0), 1); }
