// Card: the pictures of one case with a slider for the probability threshold.

/** Shows one case at a time in an <article class="card">. */
class Card {
  constructor(article, colors) {
    this.article = article;
    this.colors = colors;
    this.body = article.querySelector(".body");
    this.body.replaceChildren(document.getElementById("card-body").content.cloneNode(true));
    this.part = (name) => this.body.querySelector(name);
    this.slider = this.part(".threshold input");
    this.choice = this.part("select");
    this.slider.addEventListener("input", () => this.draw());
    this.choice.addEventListener("change", () => this.reset());
    this.part(".reset").addEventListener("click", () => this.reset());
    this.part(".scroll-slices").addEventListener("input", () => this.drawSlice());
    this.body.hidden = true;
  }

  /** Decodes and draws a picture with the threshold of the evaluation; null hides the card. */
  async show(picture) {
    this.picture = picture;
    this.body.hidden = !picture;
    if (!picture) return;
    const planes = await loadPicture(picture);
    if (this.picture !== picture) return; // Another picture was selected in the meantime.
    this.planes = planes;
    this.part(".image").src = picture.image;
    this.part(".image").alt = `${picture.case}: image${picture.part && `, ${picture.part}`}`;
    this.choice.replaceChildren(...picture.classes.map((own, place) => new Option(own.name, place)));
    this.choice.value = this.firstClass();
    this.part(".class-choice").hidden = picture.classes.length < 2;
    this.showVolume(picture);
    this.reset();
  }

  /** Shows the slices of a volume, a projection, and the planes across the slices. */
  showVolume({ views, case: name }) {
    this.part(".volume").hidden = !views;
    if (!views) return;
    const scroll = this.part(".scroll-slices");
    scroll.max = views.slices.length - 1;
    scroll.value = views.start;
    this.part(".proportions").textContent = views.note;
    const figures = views.planes.map(([title, source]) => {
      const figure = document.createElement("figure");
      const image = Object.assign(new Image(), { src: source, alt: `${name}: ${title}, with outlines` });
      const caption = document.createElement("figcaption");
      caption.textContent = title;
      figure.append(image, caption);
      return figure;
    });
    this.part(".planes").replaceChildren(...figures);
    this.drawSlice();
  }

  drawSlice() {
    const { views, case: name } = this.picture;
    const scroll = this.part(".scroll-slices");
    const text = `${views.numbers[scroll.valueAsNumber]} of ${views.total}`;
    this.part(".slice").src = views.slices[scroll.valueAsNumber];
    this.part(".slice").alt = `${name}: slice ${text}, with outlines`;
    this.part(".slice-number").value = text;
    scroll.setAttribute("aria-valuetext", `slice ${text}`);
  }

  /** Returns the index of the first annotated class, or else of the first class. */
  firstClass() {
    const isThere = ({ members }) => this.planes.truth.some((index) => members.includes(index));
    return Math.max(0, this.picture.classes.findIndex(isThere));
  }

  /** Resets the slider to the threshold of the evaluation. */
  reset() {
    this.slider.value = this.picture.classes[this.choice.value].threshold;
    this.draw();
  }

  draw() {
    const { members, name } = this.picture.classes[this.choice.value];
    const percent = this.planes.percents[this.choice.value];
    const threshold = this.slider.valueAsNumber;
    const found = compare(this.planes.truth, members, percent, threshold);
    drawOutlines(this.part(".outlines"), this.planes, members, percent, threshold, this.colors);
    drawErrors(this.part(".errors"), this.planes, found.verdicts, this.colors);
    this.describe(found, threshold, name);
  }

  describe(found, threshold, name) {
    const dice = diceOf(found);
    const score = dice === null ? "empty in annotation and prediction" : `Dice ${dice.toFixed(3)}`;
    const counts = [
      `${found.truePositives} true positive`, `${found.falseNegatives} false negative`,
      `${found.falsePositives} false positive pixels`,
    ].join(", ");
    const level = (threshold / 100).toFixed(2);
    this.slider.setAttribute("aria-valuetext", level); // The other values are in the statement.
    this.part(".statement").value = `Threshold ${level}: ${score} in this picture (${counts}).`;
    const label = `${this.picture.case}, ${name}, threshold ${level}, ${score}`;
    this.part(".outlines").setAttribute("aria-label", `Outlines of annotation and prediction: ${label}`);
    this.part(".errors").setAttribute("aria-label", `Error map: ${label}; ${counts}`);
  }
}
