// The explorer's tour: a dozen things to try, one at a time, each with its control marked. It is remembered nowhere.

// A step says in which mode it is shown, and by which selectors its control is found: the first that is there. `when` leaves it out.
const TOUR = [
  { mode: "free", at: [".dx-pad"], title: "Drag the dot",
    text: "Or use the arrow keys. Each place in the pad is another latent vector, and the picture beside it is what the generator makes of it." },
  { mode: "free", at: [".dx-mosaic"], title: "Look at the neighbours",
    text: "The small pictures show what you would get there. Do they change little by little, or suddenly?" },
  { mode: "free", at: [".dx-new"], title: "Press “New z” ten times",
    text: "Each time fresh random numbers are drawn. How many of the ten pictures look right to you, and how many are broken?" },
  { mode: "free", at: [".dx-seed-field", ".dx-seed"], title: "Type a seed, such as 7",
    text: "A seed stands for its latent vector. The same seed brings the same picture back, on any machine and in Python." },
  { mode: "free", at: [".dx-sliders", ".dx-directions"], title: "Change one thing only",
    text: "Move along one direction, named or random, and watch everything else. Does something change that you did not ask for?" },
  { mode: "free", at: [".dx-models"], title: "Choose another generator", when: ({ state }) => state.models.length > 1,
    text: "The dot stays where it is, but the picture is of another kind: each generator has a latent space of its own." },
  { mode: "walk", at: [".dx-play"], title: "Walk",
    text: "Press the button. The walk leads through random latent vectors, shown small. Is what lies between two pictures a picture too, or a blend of both?" },
  { mode: "walk", at: [".dx-path"], title: "Take the other path",
    text: "Stop halfway between two pictures, then change from the straight line to the sphere. What is different, and is it better?" },
  { mode: "arithmetic", at: [".dx-sum"], title: "Add and subtract",
    text: "Press A, B or C, then choose up to three pictures for it below. Pictures that share something, such as glasses, make the sum clearer." },
  { mode: "turn", at: [".dx-far", ".dx-row"], title: "Go too far",
    text: "Each row is one latent vector, moved along the same direction. Move the slider to the right: when do the pictures break?" },
  { mode: "maps", at: [".dx-tiles"], title: "Switch maps off",
    text: "Each tile is a feature map, from which the picture is painted. Switch some off. Can you find one that paints a single thing?" },
  { mode: "steps", at: [".dx-range"], title: "Watch it learn", when: ({ about }) => about.samples?.length > 1,
    text: "The same latent vectors, from the first steps of training to the last. When do you see for the first time what it is?" },
  { mode: "free", at: [".dx-save"], title: "Keep what you found",
    text: "“Save PNG” keeps the picture. In the book, “Copy link” keeps the place, for yourself or for someone else." },
];

class Tour {
  /** Begin at the first step; `done` is called when the reader ends the tour. */
  constructor(explorer, done) {
    Object.assign(this, { explorer, done, place: 0, cameFrom: explorer.state.mode });
    this.steps = TOUR.filter(({ when }) => !when || when(explorer));
    this.title = el("strong", {});
    this.text = el("p", {});
    this.count = el("span", { class: "dx-note" });
    this.back = button("Back", () => this.move(-1));
    this.next = button("Next", () => this.move(1));
    const said = el("div", { class: "dx-tour-text", "aria-live": "polite", "aria-atomic": "true" }, this.count, this.title, this.text);
    const tools = el("div", { class: "dx-row" }, this.back, this.next, button("Go to it", () => this.visit()),
      el("span", { class: "dx-gap" }), button("End the tour", () => this.done(), { title: "Or press Escape" }));
    this.element = el("div", { class: "dx-tour", role: "group", "aria-label": "Tour of the explorer" }, said, tools);
  }

  step() {
    return this.steps[this.place];
  }

  /** Show the step of now, in its mode. */
  show() {
    const { title, text, mode } = this.step(), last = this.steps.length - 1;
    this.title.textContent = title;
    this.text.textContent = text;
    this.count.textContent = `${this.place + 1} of ${this.steps.length}. `;
    this.back.setAttribute("aria-disabled", String(this.place === 0));
    this.next.textContent = this.place === last ? "Done" : "Next";
    if (this.explorer.state.mode === mode) this.point();
    else this.explorer.set({ mode }); // which builds the controls anew, and points
  }

  move(by) {
    if (this.place + by >= this.steps.length) return this.done();
    this.place = Math.max(0, this.place + by);
    this.show();
  }

  /** The control that the step talks of, if it is there. */
  control() {
    const found = this.step().at.map((selector) => this.explorer.root.querySelector(selector));
    return this.explorer.state.mode === this.step().mode ? found.find(Boolean) : null;
  }

  /** Mark the control, and bring it into view above the tour. */
  point() {
    this.unmark();
    const control = this.control();
    if (!control) return;
    control.classList.add("dx-pointed");
    const { top, bottom } = control.getBoundingClientRect(), below = this.element.getBoundingClientRect().top;
    if (top < 0 || bottom > Math.min(innerHeight, below)) control.scrollIntoView({ block: "center", behavior: calm() ? "auto" : "smooth" });
  }

  unmark() {
    for (const one of this.explorer.root.querySelectorAll(".dx-pointed")) one.classList.remove("dx-pointed");
  }

  /** Move the keyboard to the control. */
  visit() {
    const control = this.control(), kinds = "button, input, select, [tabindex='0']";
    const stop = control?.matches(kinds) ? control : control?.querySelector(kinds) ?? control?.closest(kinds);
    stop?.focus();
  }
}

