"""A real browser with a page in it: where its plots have their points, and what a pointer is told of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
PATIENCE = 30
"""Seconds for a plot to be drawn on a busy machine."""

AT = """
// Where a point of a line is on the screen, and what the line is: the first whose name begins so.
const [place, name, index] = arguments;
document.getElementById(place).scrollIntoView({block: "center"});
const plot = drawn.get(place), view = Bokeh.index.find_one(plot), box = view.el.getBoundingClientRect();
const marks = plot.renderers.filter(one => one.glyph.type === "Scatter");
const line = marks.find(one => one.data_source.data.name[0] === name);
const data = line.data_source.data;
return {
  x: box.x + view.frame.x_scale.compute(data.x[index]), y: box.y + view.frame.y_scale.compute(data.y[index]),
  length: data.x[index], record: data.record[index], visible: line.visible,
};
"""
TOOLTIP = """
function text(node) {
  if (node.nodeType === 3) return node.textContent;
  if (["STYLE", "SCRIPT"].includes(node.tagName)) return "";
  const parts = [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes];
  return parts.map(text).join(" ");
}
function all(node, found) {
  if (node.classList && node.classList.contains("bk-Tooltip")) found.push(text(node));
  for (const one of [...(node.shadowRoot ? node.shadowRoot.children : []), ...node.children]) all(one, found);
  return found;
}
return all(document.body, []).join(" ").replace(/\\s+/g, " ");
"""
CUT = """
// Elements whose text is wider than they are and that cannot be scrolled, and what leaves the page's sides.
const cut = [];
for (const one of document.querySelectorAll("body *")) {
  if (one.closest(".scroll, pre, svg, dialog, script, noscript") || !one.checkVisibility()) continue;
  const box = one.getBoundingClientRect(), style = getComputedStyle(one);
  if (style.opacity === "0") continue;
  const words = one.tagName + " " + one.textContent.slice(0, 80);
  if (box.right > innerWidth + 1 || box.left < -1) cut.push("beyond the side: " + words);
  if (style.overflowX === "hidden" && one.scrollWidth > one.clientWidth + 1) cut.push("hidden: " + words);
}
if (document.documentElement.scrollWidth > innerWidth) cut.push("the page scrolls sideways");
const pen = document.createElement("canvas").getContext("2d");
for (const [place, plot] of drawn) {
  const box = document.getElementById(place).getBoundingClientRect();
  if (!box.width) continue;
  for (const [axes, room] of [[plot.below, box.width], [plot.left, box.height]])
    for (const axis of axes) {
      pen.font = `${axis.axis_label_text_font_size} ${axis.axis_label_text_font}`;
      if (pen.measureText(axis.axis_label).width > room) cut.push("label of an axis: " + axis.axis_label);
    }
}
return cut;
"""


class Browser:
    """A browser with what the tests do in it."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(BROWSER)
        for argument in ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))

    def open(self, path: Path, width: int = 1200) -> None:
        """Open a page anew and wait for the plots of its first tab."""
        emulated = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulated)
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.log(log)
        self.driver.get(path.as_uri())
        self.wait_for_plots()

    def log(self, name: str) -> list[dict[str, Any]]:
        """What a log of the browser holds since it was last read."""
        driver: Any = self.driver
        found: list[dict[str, Any]] = driver.get_log(name)
        return found

    def wait_for_plots(self) -> None:
        """Wait until every plot that is shown is drawn."""
        ready = (
            "return [...document.querySelectorAll('.plot')].filter(one => one.checkVisibility())"
            ".every(one => drawn.get(one.id) && Bokeh.index.find_one(drawn.get(one.id)).is_idle)"
        )
        WebDriverWait(self.driver, PATIENCE).until(lambda driver: driver.execute_script(ready))

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def point_at(self, place: str, name: str, index: int) -> dict[str, Any]:
        """Move the pointer to a point of a plot."""
        self.script(AT, place, name, index)
        found: dict[str, Any] = self.script(AT, place, name, index)
        actions: Any = ActionChains(self.driver)
        actions.w3c_actions.pointer_action.move_to_location(2, 2)
        actions.w3c_actions.pointer_action.move_to_location(int(found["x"]), int(found["y"]))
        actions.perform()
        return found

    def tooltip(self) -> str:
        """What the pointer is told."""
        return str(self.script(TOOLTIP))

    def requests(self) -> list[str]:
        """What was asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def errors(self) -> list[str]:
        return [one["message"] for one in self.log("browser") if one["level"] != "INFO"]
