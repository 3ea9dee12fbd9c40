// A picture drawn on a canvas: browsers keep what an <img> shows decoded long after it has gone, which
// for hundreds of sections is hundreds of megabytes; a canvas is empty when we say so.
function drawing(address, alt, onLost) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", alt);
  canvas.width = 0;
  const image = loading(address);
  image.addEventListener("error", onLost);
  image.addEventListener("load", () => createImageBitmap(image).then((bitmap) => {
    if (!canvas.dataset.gone) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
    }
    bitmap.close();
  }).catch(onLost));
  return canvas;
}

function erase(canvas) {
  canvas.dataset.gone = "true";
  canvas.width = 0;
}

// a picture that is read but not yet shown
function loading(address) {
  const image = new Image();
  image.src = address;
  return image;
}

// One frame with pictures on top of each other that can be zoomed and moved, a cross that follows the
// pointer or the arrow keys, and marks. Panes with one `view` move together.

class Pane {
  // handlers: point(pane, mm) where one is chosen, move(pane, mm or null) as the cross moves
  constructor(id, label, view, handlers) {
    this.view = view;
    this.handlers = handlers;
    this.grid = null;
    this.mirror = false;
    this.turn = 0;
    this.cursor = null; // picture pixels
    this.marks = [];
    this.figure = document.getElementById(id);
    this.caption = this.figure.querySelector("figcaption");
    this.frame = this.figure.querySelector(".v-frame");
    this.frame.setAttribute("aria-label", label);
    this.world = this.figure.querySelector(".v-world");
    this.layer = document.createElement("div");
    this.layer.className = "v-marks";
    this.cross = document.createElement("div");
    this.cross.className = "v-cross";
    this.frame.append(this.layer, this.cross);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.frame);
  }

  // grid: of the picture, or null where there is none
  show(grid, images) {
    this.grid = grid;
    for (const canvas of this.world.children) erase(canvas);
    this.world.replaceChildren(...images);
    if (grid) {
      this.world.style.width = `${grid.width}px`;
      this.world.style.height = `${grid.height}px`;
    }
    this.draw();
  }

  get scale() {
    const angle = this.turn * Math.PI / 180;
    const [cos, sin] = [Math.abs(Math.cos(angle)), Math.abs(Math.sin(angle))];
    const { width, height } = this.grid;
    const fit = Math.min(
      this.frame.clientWidth / (width * cos + height * sin),
      this.frame.clientHeight / (width * sin + height * cos),
    );
    return fit * this.view.zoom;
  }

  // picture pixels (edges, not centres) to pixels of the frame: mirrored, then turned counter-clockwise
  toFrame([x, y]) {
    const angle = this.turn * Math.PI / 180;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const dx = (x - this.grid.width / 2) * (this.mirror ? -1 : 1);
    const dy = y - this.grid.height / 2;
    const scale = this.scale;
    return [
      this.frame.clientWidth / 2 + this.view.x + scale * (cos * dx + sin * dy),
      this.frame.clientHeight / 2 + this.view.y + scale * (-sin * dx + cos * dy),
    ];
  }

  toPicture([x, y]) {
    const angle = this.turn * Math.PI / 180;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const scale = this.scale;
    const dx = (x - this.frame.clientWidth / 2 - this.view.x) / scale;
    const dy = (y - this.frame.clientHeight / 2 - this.view.y) / scale;
    const across = (cos * dx - sin * dy) * (this.mirror ? -1 : 1);
    return [across + this.grid.width / 2, sin * dx + cos * dy + this.grid.height / 2];
  }

  // millimetres count from the centre of the first pixel of the file, pictures keep outer edges
  toMm([x, y]) {
    const { rows, columns, width, height, pixel_mm: pixelMm } = this.grid;
    return [(x / width * columns - 0.5) * pixelMm, (y / height * rows - 0.5) * pixelMm];
  }

  ofMm([x, y]) {
    const { rows, columns, width, height, pixel_mm: pixelMm } = this.grid;
    return [(x / pixelMm + 0.5) / columns * width, (y / pixelMm + 0.5) / rows * height];
  }

  holds([x, y]) {
    return x >= 0 && y >= 0 && x <= this.grid.width && y <= this.grid.height;
  }

  draw() {
    if (!this.grid || !this.frame.clientWidth) {
      this.cross.hidden = true;
      this.layer.replaceChildren();
      return;
    }
    const { width, height } = this.grid;
    const left = this.frame.clientWidth / 2 + this.view.x - width / 2;
    const top = this.frame.clientHeight / 2 + this.view.y - height / 2;
    this.world.style.transform = `translate(${left}px, ${top}px) scale(${this.scale})` +
      ` rotate(${-this.turn}deg) scaleX(${this.mirror ? -1 : 1})`;
    this.layer.replaceChildren(...this.marks.map((mark) => {
      const [x, y] = this.toFrame(this.ofMm(mark.mm));
      const dot = document.createElement("span");
      dot.className = mark.isPending ? "v-mark v-pending" : "v-mark";
      dot.textContent = mark.name;
      dot.style.left = `${x}px`;
      dot.style.top = `${y}px`;
      return dot;
    }));
    this.cross.hidden = !this.cursor;
    if (this.cursor) {
      const [x, y] = this.toFrame(this.cursor);
      this.cross.style.left = `${x}px`;
      this.cross.style.top = `${y}px`;
    }
  }

  // picture pixels, or null where the pointer left
  setCursor(cursor) {
    this.cursor = cursor;
    this.draw();
  }

  moveCursor(cursor) {
    this.setCursor(cursor);
    this.handlers.move(this, cursor && this.toMm(cursor));
  }

  zoomBy(factor, [x, y]) {
    const zoom = Math.min(40, Math.max(1, this.view.zoom * factor));
    const by = zoom / this.view.zoom;
    const [dx, dy] = [x - this.frame.clientWidth / 2, y - this.frame.clientHeight / 2];
    this.view.x = zoom === 1 ? 0 : dx - (dx - this.view.x) * by;
    this.view.y = zoom === 1 ? 0 : dy - (dy - this.view.y) * by;
    this.view.zoom = zoom;
    this.handlers.view();
  }

  zoomMiddle(factor) {
    this.zoomBy(factor, [this.frame.clientWidth / 2, this.frame.clientHeight / 2]);
  }

  at(event) {
    const box = this.frame.getBoundingClientRect();
    return [event.clientX - box.left - this.frame.clientLeft, event.clientY - box.top - this.frame.clientTop];
  }

  listen() {
    let from = null; // where a press began
    this.frame.addEventListener("pointerdown", (event) => {
      if (!this.grid || event.button) return;
      from = { at: this.at(event), x: this.view.x, y: this.view.y, hasMoved: false };
      from.isDivider = this.handlers.grabs(this, from.at);
      this.frame.setPointerCapture(event.pointerId);
    });
    this.frame.addEventListener("pointermove", (event) => {
      if (!this.grid) return;
      const at = this.at(event);
      if (from) {
        const [dx, dy] = [at[0] - from.at[0], at[1] - from.at[1]];
        from.hasMoved = from.hasMoved || Math.hypot(dx, dy) > 4;
        if (from.isDivider) {
          this.handlers.drag(this, at);
        } else if (from.hasMoved) {
          this.view.x = from.x + dx;
          this.view.y = from.y + dy;
          this.handlers.view();
        }
      }
      this.moveCursor(this.toPicture(at));
    });
    this.frame.addEventListener("pointerup", (event) => {
      if (from && !from.hasMoved && !from.isDivider) this.choose(this.toPicture(this.at(event)));
      from = null;
    });
    this.frame.addEventListener("pointercancel", () => { from = null; });
    this.frame.addEventListener("pointerleave", () => {
      if (this.grid && !from) this.moveCursor(null);
    });
    this.frame.addEventListener("wheel", (event) => {
      // a page must scroll on: the wheel zooms where the frame was chosen, or with Ctrl
      if (!this.grid || !(event.ctrlKey || document.activeElement === this.frame)) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 400), this.at(event));
    }, { passive: false });
    this.frame.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = steps[event.key];
    if (step) {
      const [x, y] = this.toFrame(this.cursor || [this.grid.width / 2, this.grid.height / 2]);
      const by = event.shiftKey ? 20 : 2;
      this.moveCursor(this.toPicture([x + by * step[0], y + by * step[1]]));
    } else if (event.key === "Enter" && this.cursor) {
      this.choose(this.cursor);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  choose(point) {
    if (this.holds(point)) this.handlers.point(this, this.toMm(point));
  }
}
