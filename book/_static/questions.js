// Keeps the score of a page of questions: of each, the answer that was opened first.
"use strict";
{
  const questions = [...document.querySelectorAll(".question")];
  const score = document.createElement("p");
  score.className = "score";
  score.setAttribute("role", "status");
  questions.at(-1).after(score);
  const first = new Map();
  for (const question of questions) {
    for (const answer of question.querySelectorAll("details")) {
      answer.addEventListener("toggle", () => {
        if (!answer.open || first.has(question)) return;
        first.set(question, answer.classList.contains("right"));
        const right = [...first.values()].filter(Boolean).length;
        score.textContent = `${right} of ${first.size} right at the first try` +
          (first.size < questions.length ? `; ${questions.length - first.size} to go.` : ".");
      });
    }
  }
}
