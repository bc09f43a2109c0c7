// The photograph and its picture: two layers, a seam between them, and live strength.

import { drawGray } from "./gray.js";
import { followPointers } from "./pointers.js";
import { Zoom } from "./zoom.js";

export class Viewer {
  #root;
  #frame;
  #before;
  #after;
  #gray; // canvases: under the picture, and in place of a photograph that cannot be shown
  #original;
  #seam;
  #answer = null; // the answer shown
  #file = null; // its photograph
  #loading = null; // the photograph and answer being decoded
  #grayOf = null; // the answer from which the gray canvas was drawn
  #strength = 1;
  zoom;

  /** @param {HTMLElement} root of index.html's viewer */
  constructor(root) {
    this.#root = root;
    this.#frame = root.querySelector("#frame");
    [this.#before, this.#after] = root.querySelectorAll(".layer img");
    [this.#original, this.#gray] = root.querySelectorAll(".layer canvas");
    this.#seam = root.querySelector("#seam");
    this.zoom = new Zoom(this.#frame, root.querySelector("#zoom-level"));
    const actions = { in: "zoomIn", out: "zoomOut", fit: "fit", full: "showFull" };
    for (const button of root.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.zoom[actions[button.dataset.zoom]]());
    }
    const frame = this.#frame;
    followPointers(frame, this.zoom, {
      get position() { return (frame.clientWidth * parseFloat(frame.style.getPropertyValue("--x") || "50")) / 100; },
      moveTo: (position) => this.#moveSeam((100 * position) / frame.clientWidth),
    });
    this.#seam.addEventListener("input", () => this.#moveSeam(Number(this.#seam.value)));
    this.#moveSeam(50);
  }

  get frame() { return this.#frame; }

  /**
   * Show a photograph and its answer; without an answer, only the photograph.
   * @returns {Promise<boolean>} false: the browser cannot show it
   */
  show(photograph, answer = null) {
    const { file } = photograph;
    if (this.#loading?.file === file && this.#loading.answer === answer) return this.#loading.done;
    if (this.#file === file && (!answer || this.#answer === answer)) return Promise.resolve(true);
    this.#loading = { file, answer };
    this.#loading.done = this.#load(photograph, answer, this.#loading);
    return this.#loading.done;
  }

  async #load(photograph, answer, loading) {
    const isOther = this.#file !== photograph.file;
    const [picture, original] = await Promise.all([
      answer && loadImage(answer.picture),
      isOther && photograph.isShowable ? loadImage(photograph.file) : null,
    ]);
    if (loading !== this.#loading) return true; // another photograph or answer is shown by now
    this.#loading = null;
    if (!(answer ? picture : original)) return false;
    [this.#answer, this.#file] = [answer, photograph.file];
    this.#frame.classList.toggle("alone", !answer);
    this.#root.hidden = false;
    if (picture) this.#after = replaceImage(this.#after, picture);
    const { naturalWidth: width, naturalHeight: height } = picture ?? original;
    this.#frame.style.aspectRatio = `${width} / ${height}`;
    this.#frame.style.maxWidth = `calc(76vh * ${width / height})`;
    if (isOther) {
      if (original) this.#before = replaceImage(this.#before, original);
      this.#before.hidden = !original;
      this.#original.hidden = Boolean(original);
      this.zoom.reset(width);
    }
    await this.setStrength(this.#strength);
    return true;
  }

  /** Whether a picture of this photograph is shown. */
  shows(photograph) { return this.#file === photograph.file; }

  hide() {
    this.#root.hidden = true;
    this.#answer = this.#file = this.#loading = null;
  }

  /** Dim the picture while another is made. */
  set isStale(isStale) { this.#frame.classList.toggle("stale", isStale); }

  /** Blend the picture with its gray version; above 1 the answer itself has the strength. */
  async setStrength(strength) {
    this.#strength = strength;
    this.#after.style.opacity = Math.min(1, strength);
    this.#gray.hidden = strength >= 1;
    const answer = this.#answer;
    const needsGray = strength < 1 || !this.#original.hidden;
    if (!answer || !needsGray || this.#grayOf === answer) return;
    this.#grayOf = answer;
    await drawGray(this.#after, this.#gray);
    if (this.#original.hidden || this.#answer !== answer) return;
    Object.assign(this.#original, { width: this.#gray.width, height: this.#gray.height });
    this.#original.getContext("2d").drawImage(this.#gray, 0, 0);
  }

  #moveSeam(percent) {
    const share = Math.round(Math.min(Math.max(percent, 0), 100) * 10) / 10;
    this.#frame.style.setProperty("--x", `${share}%`);
    this.#seam.value = share;
    const original = Math.round(share);
    this.#seam.setAttribute("aria-valuetext", `${original} % before, ${100 - original} % in colour`);
  }
}

/** Decode a file to an image; null: the browser cannot. */
export async function loadImage(blob) {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  try {
    await image.decode();
    return image;
  } catch {
    URL.revokeObjectURL(image.src);
    return null;
  }
}

function replaceImage(old, image) {
  image.alt = old.alt;
  old.replaceWith(image);
  if (old.src) URL.revokeObjectURL(old.src);
  return image;
}
