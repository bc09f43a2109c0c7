// The queue as a list: thumbnail, name and state of each photograph.

const THUMBNAIL = 240; // width in pixels

export class PhotographList {
  #list;
  #items = new Map(); // elements by photograph
  #actions;

  /** @param {Object} actions select(photograph) and remove(photograph) */
  constructor(list, actions) {
    this.#list = list;
    this.#actions = actions;
  }

  add(photograph) {
    const item = document.createElement("li");
    const button = makeElement("button", { type: "button", className: "photograph" });
    const remove = makeElement("button", { type: "button", className: "remove", textContent: "×" });
    remove.setAttribute("aria-label", `Remove ${photograph.name}`);
    button.append(
      makeElement("canvas", { width: 1, height: 1 }),
      makeElement("b", { textContent: photograph.name, title: photograph.name }),
      makeElement("small"),
    );
    button.addEventListener("click", () => this.#actions.select(photograph));
    remove.addEventListener("click", () => this.#actions.remove(photograph));
    item.append(button, remove);
    this.#list.append(item);
    this.#items.set(photograph, item);
    this.update(photograph);
  }

  remove(photograph) {
    this.#items.get(photograph)?.remove();
    this.#items.delete(photograph);
  }

  update(photograph) {
    const item = this.#items.get(photograph);
    if (!item) return;
    const { state, note, problem } = photograph;
    item.querySelector(".photograph").classList.toggle("failed", state === "failed");
    item.querySelector("small").textContent = problem ? `failed: ${problem.detail}` : note;
  }

  markSelected(photograph) {
    for (const [other, item] of this.#items) {
      item.querySelector(".photograph").setAttribute("aria-current", other === photograph);
    }
    this.#items.get(photograph)?.scrollIntoView({ block: "nearest" });
  }

  /** Draw the thumbnail from a file or a picture. False: the browser cannot show it. */
  async drawThumbnail(photograph, blob) {
    const bitmap = await createImageBitmap(blob, { resizeWidth: THUMBNAIL, resizeQuality: "medium" })
      .catch(() => null);
    const canvas = this.#items.get(photograph)?.querySelector("canvas");
    if (!bitmap) return false;
    if (canvas) {
      Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
    }
    bitmap.close();
    return true;
  }
}

function makeElement(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}
