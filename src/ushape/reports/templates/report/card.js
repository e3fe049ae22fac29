// A card: one case's pictures, with a slider for the threshold.

/** Shows cases in an <article class="card">, one after the other. */
class Card {
  constructor(article, colors) {
    this.article = article;
    this.colors = colors;
    this.body = article.querySelector(".body");
    this.body.replaceChildren(document.getElementById("card-body").content.cloneNode(true));
    this.part = (name) => this.body.querySelector(name);
    this.slider = this.part("input");
    this.choice = this.part("select");
    this.slider.addEventListener("input", () => this.draw());
    this.choice.addEventListener("change", () => this.reset());
    this.part(".reset").addEventListener("click", () => this.reset());
    this.body.hidden = true;
  }

  /** Decodes a picture and draws it as it was scored; null hides all. */
  async show(picture) {
    this.picture = picture;
    this.body.hidden = !picture;
    if (!picture) return;
    const planes = await loadPicture(picture);
    if (this.picture !== picture) return; // Another was chosen meanwhile.
    this.planes = planes;
    this.part(".image").src = picture.image;
    this.part(".image").alt = `${picture.case}: the image${picture.part && `, ${picture.part}`}`;
    this.choice.replaceChildren(...picture.classes.map((own, place) => new Option(own.name, place)));
    this.choice.value = this.firstClass();
    this.part(".class-choice").hidden = picture.classes.length < 2;
    this.reset();
  }

  /** The first class that is in the truth, else the first. */
  firstClass() {
    const isThere = ({ members }) => this.planes.truth.some((index) => members.includes(index));
    return Math.max(0, this.picture.classes.findIndex(isThere));
  }

  /** Back to the threshold of the scores. */
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
    const score = dice === null ? "nothing to find, nothing found" : `Dice ${dice.toFixed(3)}`;
    const counts = `${found.hits} pixels hit, ${found.misses} missed, ${found.alarms} false alarms`;
    const level = (threshold / 100).toFixed(2);
    this.slider.setAttribute("aria-valuetext", level); // The statement tells the rest.
    this.part(".statement").value = `Threshold ${level}: ${score} in this picture; ${counts}.`;
    const label = `${this.picture.case}, ${name}, threshold ${level}, ${score}`;
    this.part(".outlines").setAttribute("aria-label", `Outlines of truth and prediction: ${label}`);
    this.part(".errors").setAttribute("aria-label", `Error map: ${label}; ${counts}`);
  }
}
