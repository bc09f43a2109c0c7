// Mouse, pen and fingers on the frame: one pointer moves the seam or pans, two zoom.

const REACH = 24; // CSS pixels from the seam within which a pointer moves it in a zoomed picture

/**
 * @param {HTMLElement} frame
 * @param {Zoom} zoom
 * @param {Object} seam position (CSS pixels in the frame) and moveTo(position)
 */
export function followPointers(frame, zoom, seam) {
  const pointers = new Map(); // positions in the frame, by id
  let movesSeam = false;

  const locate = ({ clientX, clientY }) => {
    const { left, top } = frame.getBoundingClientRect();
    return { x: clientX - left, y: clientY - top };
  };

  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const point = locate(event);
    frame.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, point);
    movesSeam = !zoom.isZoomed || Math.abs(point.x - seam.position) < REACH;
    if (movesSeam && pointers.size === 1) seam.moveTo(point.x);
  });

  frame.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = locate(event);
    if (pointers.size === 2) pinch(event.pointerId, before, now);
    else if (movesSeam) seam.moveTo(now.x);
    else zoom.panBy(now.x - before.x, now.y - before.y);
    pointers.set(event.pointerId, now);
  });

  function pinch(id, before, now) {
    const [[, other]] = [...pointers].filter(([key]) => key !== id);
    const distance = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
    movesSeam = false;
    zoom.zoomBy(distance(now) / distance(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
  }

  for (const name of ["pointerup", "pointercancel"]) {
    frame.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
}
