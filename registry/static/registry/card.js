// Card form of a payment that waits for its payer. Stripe.js renders it in its own iframes: this page never has card data.

const form = document.getElementById("card");
const button = form.querySelector("button");
const problem = form.querySelector("[role=alert]");
const stripe = window.Stripe?.(form.dataset.key);
const clientSecret = form.dataset.secret;
const authenticates = form.dataset.needs === "authentication";

function show(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { colorPrimary: of("--accent"), colorBackground: of("--sheet"), colorText: of("--ink"), colorDanger: of("--red") };
}

let elements = null;
if (!stripe) show("The card form could not be loaded. Please try again later; nothing has been charged.");
else {
  if (!authenticates) {
    elements = stripe.elements({ clientSecret, appearance: { variables: colours() } });
    elements.create("payment").mount("#card-element");
  }
  button.disabled = false;
}

const lookAgain = () => fetch(document.getElementById("action").dataset.look, {
  method: "POST", headers: { "X-Requested-With": "fetch" },
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  show("");
  try {
    const { error } = authenticates
      ? await stripe.handleNextAction({ clientSecret })
      : await stripe.confirmPayment({ elements, redirect: "if_required", confirmParams: { return_url: location.href } });
    if (error) show(error.message);
    if (!error || authenticates) await lookAgain(); // a failed authentication is an answer, too
  } catch {
    show("That did not work. Please try again; you will not be charged twice.");
  } finally {
    button.disabled = false;
  }
});
