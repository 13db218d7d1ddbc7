//! The aggregator's page, as somebody uses it in a browser.

mod browser;

use platziverse_testkit::World;
use serde_json::json;

use self::browser::Browser;

fn state_is(state: &str) -> String {
    format!("document.getElementById('state').dataset.state === '{state}'")
}

/// That the page shows this message, once.
fn shows(message: &str) -> String {
    let message = json!(message);
    format!(
        "[...document.querySelectorAll('#messages code')]\
         .filter((shown) => shown.textContent === {message}).length === 1"
    )
}

/// That the latest of what was sent by this action has this outcome, and says so.
fn latest_is(outcome: &str, action: &str, text: &str) -> String {
    let (latest, text) =
        (format!("document.querySelector('#sent li[data-action={action}]')"), json!(text));
    format!("{latest}?.dataset.outcome === '{outcome}' && {latest}.textContent.includes({text})")
}

/// Publishes what is in the page's field to every client of the channel `chat`.
async fn broadcasts(page: &mut Browser, message: &str) {
    page.fill("message", message).await;
    page.fill("audience", "broadcast").await;
    page.click("publish").await;
    page.until(&latest_is("done", "publish", "receipt")).await;
}

/// A script can show a token as a subprotocol alone.
async fn only_bob_is_let_in(world: &World, page: &mut Browser) {
    let tokens = r#"[{"client": "bob", "token": "token-of-bob-alone"}]"#;
    let settings = [
        ("PLATZIVERSE_AGGREGATOR__ANONYMOUS", "never"),
        ("PLATZIVERSE_AGGREGATOR__TOKENS", tokens),
    ];
    let aggregator = world.aggregator_with(&settings).await;
    page.open(&format!("http://{}/", aggregator.address())).await;
    page.fill("token", "token-of-nobody").await;
    page.click("connect").await;
    page.until(&state_is("reconnecting")).await;
    page.click("disconnect").await;
    page.fill("token", "token-of-bob-alone").await;
    page.click("connect").await;
    page.until(&state_is("connected")).await;
    page.until("document.getElementById('client').value === 'bob'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_tries_it_in_a_browser() {
    let world = World::start().await;
    let aggregator = world.aggregator().await;
    let _server = world.echo_server(world.amqp_url(), &["--channel", "chat"]);
    let url = format!("http://{}/", aggregator.address());
    let mut page = Browser::start(world.folder()).await;
    page.open(&url).await;
    page.fill("client", "ana").await;
    page.click("connect").await;
    page.until(&state_is("connected")).await;

    page.click("channel-chat").await;
    page.click("consume").await;
    page.until("document.getElementById('consumed').textContent === 'chat'").await;
    broadcasts(&mut page, r#"{"say": "to everyone"}"#).await;
    page.until(&shows(r#"{"say":"to everyone"}"#)).await;

    page.fill("message", r#"{"price of": 2}"#).await;
    page.fill("audience", "servers").await;
    page.click("request").await;
    page.until(&latest_is("done", "request", r#""echo":{"price of":2}"#)).await;

    page.fill("audience", "direct").await;
    page.fill("clients", "ana, nobody").await;
    page.click("publish").await;
    page.until(&latest_is("done", "publish", "ana is known")).await;
    page.until(&latest_is("done", "publish", "nobody is unknown")).await;

    page.fill("away", "1").await;
    page.click("drop").await;
    page.until(&state_is("reconnecting")).await;
    let properties =
        json!({ "delivery_mode": 2, "content_type": "application/json", "type": "publish" });
    world.rabbitmq().publish("OUTBOUND", "chat.broadcast", properties, r#""while away""#).await;
    page.until(&state_is("resumed")).await;
    page.until(&shows(r#""while away""#)).await;
    broadcasts(&mut page, r#""after it""#).await;
    page.until(&shows(r#""after it""#)).await;
    // What was there before has not come again.
    page.until(&shows(r#"{"say":"to everyone"}"#)).await;

    // Another visit to the page goes on, too: it begins with what is new.
    page.open(&url).await;
    page.click("connect").await;
    page.until(&state_is("resumed")).await;
    broadcasts(&mut page, r#""a new visit""#).await;
    page.until(&shows(r#""a new visit""#)).await;
    page.until("document.querySelectorAll('#messages li').length === 1").await;
    page.until("document.getElementById('missed').textContent === '0'").await;
    only_bob_is_let_in(&world, &mut page).await;
    assert!(page.faults().is_empty(), "{:?}", page.faults());
}
