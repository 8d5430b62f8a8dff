"""A page of another origin pushes to the queue with a key: preflight, request and readable response."""

from playwright.async_api import Page

from tests.browser.conftest import Guard
from tests.conftest import Api

PUSH = """async ([url, key]) => {
  const call = async (body, bearer) => {
    const response = await fetch(url, {method: "POST", body, headers: {
      "Content-Type": "application/json", "Authorization": `Bearer ${bearer}`, "X-Queen-Tenant": "shop"}})
    return [response.status, response.headers.has("X-Request-Id"), (await response.text()).length > 0]
  }
  const item = JSON.stringify({items: [{queue: "from-a-page", payload: 1}]})
  return [await call(item, key), await call(item, "rk_0123456789ab_SECRET"), await call("{", key)]
}"""


async def test_a_page_of_another_origin_may_push_and_can_read_errors(page: Page, guard: Guard, api: Api):
    """`localhost` is another site than 127.0.0.1; this document of it has no policy of its own on whom it calls."""
    guard.allowed += ["outside: http://localhost", "status of 401", "status of 400", "status of 404"]  # 404: its icon
    await page.goto(api.address.replace("127.0.0.1", "localhost") + "/health/live")

    answers = await page.evaluate(PUSH, [f"{api.address}/api/v1/push", api.key])

    assert answers == [[201, True, True], [401, True, True], [400, True, True]]
