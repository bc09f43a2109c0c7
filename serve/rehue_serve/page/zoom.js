// Zoom and pan of the frame: all images in it share one transform, so they stay in step.

const STEP = 1.5; // of the buttons and keys
const PAN = 60; // CSS pixels per press of an arrow key
const LARGEST = 4; // screen pixels per image pixel

export class Zoom {
  #frame;
  #level;
  #scale = 1; // 1: the whole picture fits the frame
  #left = 0; // of the picture in the frame, CSS pixels
  #top = 0;
  #width = 1; // of the picture, image pixels

  constructor(frame, level) {
    this.#frame = frame;
    this.#level = level;
    frame.addEventListener("keydown", (event) => this.#onKey(event));
    frame.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false });
    new ResizeObserver(() => this.#move(this.#scale, this.#left, this.#top)).observe(frame);
  }

  get isZoomed() { return this.#scale > 1.001; }

  /** The scale at which an image pixel is a screen pixel: 100 %. */
  get #full() { return this.#width / (this.#frame.clientWidth * devicePixelRatio || 1); }

  /** Show a picture of another width: fit it. */
  reset(width) {
    this.#width = width;
    this.fit();
  }

  fit() { this.#move(1, 0, 0); }
  showFull() { this.zoomTo(this.#full); }
  zoomIn() { this.zoomTo(this.#scale * STEP); }
  zoomOut() { this.zoomTo(this.#scale / STEP); }

  /** Zoom around the point (x, y) of the frame; by default around its middle. */
  zoomTo(scale, x = this.#frame.clientWidth / 2, y = this.#frame.clientHeight / 2) {
    const next = Math.min(Math.max(scale, 1), Math.max(1, this.#full * LARGEST));
    const ratio = next / this.#scale;
    this.#move(next, x - (x - this.#left) * ratio, y - (y - this.#top) * ratio);
  }

  panBy(x, y) { this.#move(this.#scale, this.#left + x, this.#top + y); }
  zoomBy(ratio, x, y) { this.zoomTo(this.#scale * ratio, x, y); }

  /** Return the point of the picture under a point of the window, each from 0 to 1. */
  toPicturePoint(clientX, clientY) {
    const { left, top, width, height } = this.#frame.getBoundingClientRect();
    return {
      x: (clientX - left - this.#left) / (width * this.#scale),
      y: (clientY - top - this.#top) / (height * this.#scale),
    };
  }

  #move(scale, left, top) {
    const { clientWidth: width, clientHeight: height, style, classList } = this.#frame;
    this.#scale = scale;
    this.#left = clamp(left, width * (1 - scale), 0);
    this.#top = clamp(top, height * (1 - scale), 0);
    style.setProperty("--scale", this.#scale);
    style.setProperty("--left", `${this.#left}px`);
    style.setProperty("--top", `${this.#top}px`);
    classList.toggle("zoomed", this.isZoomed);
    classList.toggle("sharp", scale > 2 * this.#full);
    this.#level.textContent = `${Math.round((100 * scale) / this.#full)} %`;
  }

  #onKey(event) {
    if (event.target !== this.#frame) return;
    const actions = {
      "+": () => this.zoomIn(), "=": () => this.zoomIn(), "-": () => this.zoomOut(),
      0: () => this.fit(), 1: () => this.showFull(),
    };
    if (this.isZoomed) {
      Object.assign(actions, {
        ArrowLeft: () => this.panBy(PAN, 0), ArrowRight: () => this.panBy(-PAN, 0),
        ArrowUp: () => this.panBy(0, PAN), ArrowDown: () => this.panBy(0, -PAN),
      });
    }
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  }

  /** A trackpad's pinch arrives as a wheel with Ctrl; a wheel alone scrolls the page. */
  #onWheel(event) {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const { left, top } = this.#frame.getBoundingClientRect();
    this.zoomBy(Math.exp(-event.deltaY / 200), event.clientX - left, event.clientY - top);
  }
}

function clamp(value, least, most) { return Math.min(Math.max(value, least), most); }
