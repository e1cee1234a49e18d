// Shows axe a page without what it would only take time with: mostly pieces of highlighted code.
window.faults = (() => {
  let copies = [], emptied = [];

  // Puts copies of all code in its place, to change them.
  const copyCode = () => {
    copies = [...document.querySelectorAll(".highlight pre, .sig")].map((code) => {
      const copy = code.cloneNode(true);
      code.replaceWith(copy);
      return [code, copy];
    });
    emptied = [];
  };

  // Leaves of a piece of code that has nothing but a colour its text.
  const unmark = () => {
    copyCode();
    const coloured = (element) => [...element.attributes].every(({ name }) => name === "class");
    for (const [, copy] of copies) {
      const pieces = [...copy.querySelectorAll("span")].filter(coloured);
      for (const piece of pieces) piece.replaceWith(...piece.childNodes);
      copy.normalize();
    }
  };

  // Empties every text that looks like three before it, by its own style and that of all it stands
  // in, and returns how many looks there are and how many texts it empties.
  const emptyAlike = () => {
    copyCode();
    const unset = { opacity: "1", backgroundColor: "rgba(0, 0, 0, 0)", backgroundImage: "none" };
    const grounds = new Map([[null, ""]]), looks = new Map();
    const ground = (element) => {
      if (!grounds.has(element)) {
        const style = getComputedStyle(element), names = Object.keys(unset);
        const own = names.filter((name) => style[name] !== unset[name]).map((name) => style[name]);
        if (["absolute", "fixed", "sticky"].includes(style.position)) own.push(style.position);
        grounds.set(element, ground(element.parentElement) + own.join());
      }
      return grounds.get(element);
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const text = texts.currentNode, element = text.parentElement;
      if (!text.data.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
      const { color, fontSize, fontWeight, textShadow } = getComputedStyle(element);
      // Of signs and single characters axe decides nothing.
      const short = text.data.replace(/[^\p{L}\p{N}]/gu, "").length < 2;
      const look = [short, color, fontSize, fontWeight, textShadow, ground(element)].join();
      const before = looks.get(look) ?? 0;
      if (before >= 3) emptied.push([text, text.data]);
      looks.set(look, before + 1);
    }
    for (const [text] of emptied) text.data = "";
    for (const [, copy] of copies) {
      for (const piece of copy.querySelectorAll("span")) {
        if (!piece.textContent.trim()) piece.remove();
      }
    }
    return [looks.size, emptied.length];
  };

  const putBack = () => {
    for (const [text, data] of emptied) text.data = data;
    for (const [code, copy] of copies) copy.replaceWith(code);
  };

  // What keeps a reader from the page.
  const serious = async (within, options) => {
    const { violations } = await axe.run(within, { resultTypes: ["violations"], ...options });
    return violations
      .filter(({ impact }) => ["serious", "critical"].includes(impact))
      .map(({ id, nodes }) => [id, nodes.map(({ html }) => html.slice(0, 200))]);
  };

  const ofColour = async (within) => {
    // A colour that is still on its way to the scheme's own is not what a reader sees.
    await Promise.all(document.getAnimations().map((each) => each.finished));
    const [nLooks, nAlike] = emptyAlike();
    const found = await serious(within, { runOnly: ["color-contrast"] });
    putBack();
    return [found, nLooks, nAlike];
  };

  const ofStructure = async (within) => {
    unmark();
    const found = await serious(within, { rules: { "color-contrast": { enabled: false } } });
    putBack();
    return found;
  };

  return { ofColour, ofStructure };
})();
