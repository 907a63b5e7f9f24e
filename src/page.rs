//! The page for people: what will run out, when, with a picture. One HTML document from one pure function; the browser
//! needs no build step and no other host. Text from labels is escaped by construction (maud), and the content security
//! policy allows nothing but the page's own style sheet and script.

pub mod chart;

use std::sync::Arc;
use std::time::Duration;

use forewarn_ingest::status::{Health, Notice, Target};
use forewarn_schemas::units::{humane_bytes, humane_duration, humane_number};
use forewarn_schemas::{Forecast, ForecastState, ResourceKind, Severity, Timestamp};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Cards with a picture shown at most; the rest is in the table.
pub const CARDS_MAX: usize = 50;
/// Forecasts older than this are said to be old.
const OLD: Duration = Duration::from_secs(60);
/// Rows of the table of quiet resources shown at most, fullest first.
const ROWS_MAX: usize = 200;

/// The style sheet, served as `/page.css`.
pub const CSS: &str = include_str!("page/page.css");
/// The script, served as `/page.js`: fetches the page again and swaps its content.
pub const JS: &str = include_str!("page/page.js");
/// The page's content security policy.
pub const CSP: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A card: a resource that is not quiet, and its picture.
#[derive(Debug)]
pub struct Card {
    /// What is said about it.
    pub forecast: Arc<Forecast>,
    /// Its picture, an SVG element by [`chart::draw`].
    pub picture: Option<String>,
}

/// An alert as the page lists it.
#[derive(Debug)]
pub struct AlertRow {
    /// How bad.
    pub severity: Severity,
    /// One line.
    pub summary: String,
    /// Since when.
    pub since: Timestamp,
    /// Whether and to whom it was sent.
    pub sent: String,
}

/// All that the page shows.
#[derive(Debug, Default)]
pub struct Data {
    /// Now.
    pub now: Timestamp,
    /// When the forecasts were made; `None` while the log is being read after a start.
    pub evaluated: Option<Timestamp>,
    /// Resources that will or did run out, most urgent first.
    pub cards: Vec<Card>,
    /// How many more there are than cards.
    pub cards_left_out: usize,
    /// All other resources, fullest first.
    pub quiet: Vec<Arc<Forecast>>,
    /// Alerts that are going on.
    pub alerts: Vec<AlertRow>,
    /// What is watched.
    pub targets: Vec<Target>,
    /// What could not be done.
    pub notices: Vec<Notice>,
}

/// Says whether a forecast gets a card.
pub fn is_urgent(f: &Forecast) -> bool {
    use ForecastState as S;
    matches!(f.state, S::Exhausted | S::Critical | S::Rising)
        || (f.state == S::Stale && f.time_to_exhaustion.p50.is_some())
}

/// Orders by urgency: exhausted, then critical, then by the time that is left.
pub fn by_urgency(a: &Forecast, b: &Forecast) -> std::cmp::Ordering {
    let rank = |f: &Forecast| match f.state {
        ForecastState::Exhausted => 0,
        ForecastState::Critical => 1,
        _ => 2,
    };
    let left = |f: &Forecast| f.time_to_exhaustion.p50.or(f.time_to_exhaustion.p10).unwrap_or(f64::MAX);
    rank(a).cmp(&rank(b)).then(left(a).total_cmp(&left(b))).then_with(|| a.key.cmp(&b.key))
}

/// Renders the whole document.
pub fn document(data: &Data) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title(data)) }
                link rel="stylesheet" href="/page.css";
                link rel="icon" href="data:,";
                script src="/page.js" defer {}
            }
            body { (content(data)) }
        }
    }
}

fn title(data: &Data) -> String {
    match data.cards.first() {
        Some(c) if c.forecast.state >= ForecastState::Critical => {
            format!("{} {} – forewarn", c.forecast.key, when(&c.forecast))
        }
        _ => "forewarn".into(),
    }
}

/// Renders what changes: the script replaces it every few seconds.
pub fn content(data: &Data) -> Markup {
    html! {
        div id="content" data-title=(title(data)) {
            header {
                h1 { "forewarn" }
                p class="muted" {
                    (data.targets.len()) " nodes, " (data.cards.len() + data.cards_left_out + data.quiet.len())
                    " resources · " time datetime=(data.now.rfc3339()) { (clock_text(data.now)) " UTC" }
                    span id="lost" hidden { " · connection lost, retrying" }
                }
            }
            main {
                (age(data))
                (notices(&data.notices))
                section aria-label="What will run out" {
                    h2 { "What will run out" }
                    @if data.cards.is_empty() && data.evaluated.is_some() {
                        p class="calm" { "Nothing, as far as can be seen." }
                    }
                    @for card in &data.cards { (card_markup(card)) }
                    @if data.cards_left_out > 0 {
                        p class="muted" { "and " (data.cards_left_out) " more: see " code { "/api/v1/forecasts" } }
                    }
                }
                @if !data.alerts.is_empty() { (alerts(&data.alerts, data.now)) }
                (quiet(&data.quiet))
                (nodes(&data.targets, data.now))
            }
            footer class="muted" {
                a href="/metrics" { "metrics" } " · " a href="/api/v1/forecasts" { "forecasts" } " · "
                a href="/api/v1/resources" { "resources" } " · " a href="/api/v1/nodes" { "nodes" }
            }
        }
    }
}

/// Says so when the forecasts are not those of now.
fn age(data: &Data) -> Markup {
    html! {
        @match data.evaluated {
            None => p class="warn" { "Nothing has been judged yet: the first samples are on their way, or the log is being read." }
            Some(at) if data.now.since(at) > OLD => p class="warn" {
                "The forecasts below are " (humane_duration(data.now.seconds_since(at))) " old: no samples come in."
            }
            Some(_) => {}
        }
    }
}

fn notices(notices: &[Notice]) -> Markup {
    html! {
        @if !notices.is_empty() {
            section class="notices" aria-label="What could not be done" {
                h2 { "What could not be done" }
                ul {
                    @for n in notices { li { strong { (n.message) } " " span class="muted" { (n.mend) } } }
                }
            }
        }
    }
}

fn card_markup(card: &Card) -> Markup {
    let f = &card.forecast;
    html! {
        article class={ "card s-" (f.state.as_str()) } {
            div class="card-head" {
                h3 {
                    span class="resource" { (f.key.resource.replace('_', " ")) }
                    @if !f.key.object.is_empty() { " " span class="object" { (f.key.object) } }
                    " " span class="muted" { "on" } " " span class="node" { (f.key.node) }
                }
                span class="badge" { (f.state) }
            }
            p class="when" { (when(f)) }
            p { (f.sentence) }
            @if let Some(svg) = &card.picture { (PreEscaped(svg)) }
        }
    }
}

/// Says in a few words when it will be exhausted.
fn when(f: &Forecast) -> String {
    let t = f.time_to_exhaustion;
    match (f.state, t.p10, t.p50, t.p90) {
        (ForecastState::Exhausted, ..) => "exhausted".into(),
        (_, Some(lo), Some(mid), Some(hi)) => {
            format!("in {} ({} to {})", humane_duration(mid), humane_duration(lo), humane_duration(hi))
        }
        (_, Some(lo), Some(mid), None) => {
            format!("in {} (from {}, perhaps never)", humane_duration(mid), humane_duration(lo))
        }
        (_, Some(lo), None, _) => format!("perhaps from {} on", humane_duration(lo)),
        _ => "no time foreseen".into(),
    }
}

fn alerts(rows: &[AlertRow], now: Timestamp) -> Markup {
    html! {
        section aria-label="Alerts" {
            h2 { "Alerts" }
            div class="scroll" { table {
                thead { tr { th { "severity" } th { "what" } th { "for" } th { "sent" } } }
                tbody { @for row in rows {
                    tr { td { span class={ "badge v-" (row.severity.as_str()) } { (row.severity.as_str()) } }
                        td { (row.summary) } td { (humane_duration(now.seconds_since(row.since))) } td { (row.sent) } }
                } }
            } }
        }
    }
}

fn amount(f: &Forecast, value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(v) if f.unit == "bytes" => humane_bytes(v),
        Some(v) => humane_number(v),
    }
}

fn quiet(rows: &[Arc<Forecast>]) -> Markup {
    html! {
        section aria-label="All other resources" {
            h2 { "All other resources" }
            @if rows.is_empty() { p class="muted" { "None yet: the first samples arrive within seconds." } }
            @else {
                div class="scroll" { table {
                    thead { tr { th { "node" } th { "resource" } th class="n" { "used" } th class="n" { "limit" } th { "share" } th { "state" } } }
                    tbody { @for f in rows.iter().take(ROWS_MAX) {
                        tr {
                            td { (f.key.node) }
                            td { (f.key.resource.replace('_', " ")) @if !f.key.object.is_empty() { " " span class="object" { (f.key.object) } } }
                            td class="n" { (amount(f, f.used)) }
                            td class="n" { (amount(f, f.limit)) }
                            td { @if let Some(r) = f.used_ratio.filter(|_| f.kind != ResourceKind::Pressure) {
                                meter min="0" max="1" value=(format!("{:.3}", r.clamp(0.0, 1.0))) { } " " (format!("{:.0} %", r * 100.0))
                            } }
                            td { (f.state) }
                        }
                    } }
                } }
                @if rows.len() > ROWS_MAX { p class="muted" { "and " (rows.len() - ROWS_MAX) " more: see " code { "/api/v1/resources" } } }
            }
        }
    }
}

fn nodes(targets: &[Target], now: Timestamp) -> Markup {
    html! {
        section aria-label="Nodes" {
            h2 { "Nodes" }
            div class="scroll" { table {
                thead { tr { th { "node" } th { "family" } th { "by" } th { "health" } th { "since" } th { "last poll" } th { "trouble" } } }
                tbody { @for t in targets {
                    tr {
                        td { (t.node) } td { (t.family) } td { (t.collector) }
                        td { span class={ "badge h-" (health(t.health)) } { (health(t.health)) } }
                        td { (humane_duration(now.seconds_since(t.since))) }
                        td { @match t.last_poll { Some(p) => { (humane_duration(now.seconds_since(p))) " ago" } None => "never" } }
                        td { (t.error) }
                    }
                } }
            } }
        }
    }
}

fn health(h: Health) -> &'static str {
    match h {
        Health::Up => "up",
        Health::Down => "down",
        Health::Refused => "refused",
    }
}

fn clock_text(t: Timestamp) -> String {
    t.rfc3339().get(..19).unwrap_or_default().replace('T', " ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use forewarn_schemas::forecast::{Slope, TimeToExhaustion};
    use forewarn_schemas::{Direction, ResourceKey};

    pub(crate) fn rising(node: &str, resource: &str, object: &str) -> Forecast {
        Forecast {
            key: ResourceKey { node: node.into(), resource: resource.into(), object: object.into() },
            family: "f".into(),
            kind: ResourceKind::Hard,
            direction: Direction::Up,
            unit: "processes".into(),
            at: Timestamp::from_secs(1_800_000_000),
            state: ForecastState::Critical,
            used: Some(1_000.0),
            limit: Some(2_000.0),
            used_ratio: Some(0.5),
            slope: Some(Slope { per_second: 1.0, low: 0.9, high: 1.1 }),
            time_to_exhaustion: TimeToExhaustion { p10: Some(900.0), p50: Some(1_000.0), p90: Some(1_100.0) },
            probability: forewarn_schemas::forecast::Probabilities::default(),
            models: Default::default(),
            saw: Default::default(),
            error_ratio: None,
            harm: false,
            level: None,
            sentence: format!("{resource} {object} grows"),
        }
    }

    #[test]
    fn hostile_labels_stay_text() {
        let evil = "<img src=x onerror=alert(1)>\"'&";
        let card = Card { forecast: Arc::new(rising(evil, evil, evil)), picture: None };
        let notice = Notice { source: "x".into(), message: evil.into(), mend: evil.into() };
        let alert = AlertRow {
            severity: Severity::Critical,
            summary: evil.into(),
            since: Timestamp::default(),
            sent: evil.into(),
        };
        let data = Data {
            quiet: vec![card.forecast.clone()],
            cards: vec![card],
            notices: vec![notice],
            alerts: vec![alert],
            ..Data::default()
        };
        let page = document(&data).into_string();
        assert!(!page.contains("<img"), "{page}");
        assert!(page.contains("&lt;img"));
    }

    #[test]
    fn forecasts_that_are_old_or_not_there_yet_are_said_to_be() {
        let at = Timestamp::from_secs(1_000);
        let page = |evaluated, now| document(&Data { evaluated, now, ..Data::default() }).into_string();
        assert!(page(None, at).contains("Nothing has been judged yet"));
        assert!(!page(None, at).contains("Nothing, as far"));
        assert!(page(Some(at), at + Duration::from_secs(300)).contains("5m old"));
        let fresh = page(Some(at), at + Duration::from_secs(20));
        assert!(fresh.contains("Nothing, as far") && !fresh.contains(" old"));
    }

    #[test]
    fn the_most_urgent_comes_first() {
        let mut later = rising("a", "later", "");
        later.time_to_exhaustion.p50 = Some(5_000.0);
        let sooner = rising("b", "sooner", "");
        let mut over = rising("c", "over", "");
        over.state = ForecastState::Exhausted;
        let mut all = [later, sooner, over];
        all.sort_by(by_urgency);
        assert_eq!(all.map(|f| f.key.resource), ["over", "sooner", "later"]);
    }

    #[test]
    fn says_when_in_words() {
        let mut f = rising("a", "b", "");
        assert_eq!(when(&f), "in 16m (15m to 18m)");
        f.time_to_exhaustion.p90 = None;
        assert_eq!(when(&f), "in 16m (from 15m, perhaps never)");
        f.state = ForecastState::Exhausted;
        assert_eq!(when(&f), "exhausted");
    }
}
