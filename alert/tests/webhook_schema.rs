//! The JSON Schema of the webhook is the one that the types have, and payloads keep to it.
//!
//! `FOREWARN_BLESS=1` writes the schema file anew.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{alert, metrics, router_config};
use forewarn_alert::rules::node_down_alert;
use forewarn_alert::{MemoryStateLog, Router};
use forewarn_schemas::Timestamp;
use forewarn_schemas::webhook::WebhookPayload;
use serde_json::{Value, json};

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/json/webhook-v4.schema.json"))
}

#[test]
fn the_file_is_what_the_types_say() {
    let schema = serde_json::to_value(schemars::schema_for!(WebhookPayload)).unwrap();
    let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
    if std::env::var_os("FOREWARN_BLESS").is_some() {
        std::fs::create_dir_all(path().parent().unwrap()).unwrap();
        std::fs::write(path(), &text).unwrap();
    }
    let file = std::fs::read_to_string(path()).unwrap();
    assert_eq!(file, text, "the wire format has changed; if that is meant, bless it");
}

/// Checks the part of JSON Schema that the file uses; panics on any other.
fn check(schema: &Value, root: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (key, rule) in schema.as_object().unwrap() {
        match key.as_str() {
            "$schema" | "title" | "description" | "$defs" | "format" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                check(&root["$defs"][name], root, value, at)?;
            }
            "type" => {
                let ok = match rule.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    other => panic!("type {other}"),
                };
                ok.then_some(()).ok_or_else(|| format!("{at}: not a {rule}"))?;
            }
            "minimum" => {
                let ok = value.as_f64().is_some_and(|v| v >= rule.as_f64().unwrap());
                ok.then_some(()).ok_or_else(|| format!("{at}: below {rule}"))?;
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    value.get(name.as_str().unwrap()).ok_or_else(|| format!("{at}: {name} is missing"))?;
                }
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(rule, root, value, &format!("{at}.{name}"))?;
                    }
                }
            }
            "additionalProperties" => {
                for (name, value) in value.as_object().unwrap() {
                    check(rule, root, value, &format!("{at}.{name}"))?;
                }
            }
            "items" => {
                for (i, value) in value.as_array().unwrap().iter().enumerate() {
                    check(rule, root, value, &format!("{at}[{i}]"))?;
                }
            }
            "const" => (rule == value).then_some(()).ok_or_else(|| format!("{at}: not {rule}"))?,
            "enum" => {
                let ok = rule.as_array().unwrap().contains(value);
                ok.then_some(()).ok_or_else(|| format!("{at}: not one of {rule}"))?;
            }
            "oneOf" => {
                let fits = rule.as_array().unwrap().iter().filter(|r| check(r, root, value, at).is_ok()).count();
                (fits == 1).then_some(()).ok_or_else(|| format!("{at}: fits {fits} of {rule}"))?;
            }
            other => panic!("the check does not know {other}"),
        }
    }
    Ok(())
}

/// A payload as the router makes it: two alerts, one of them over.
fn payload() -> Value {
    let start = Timestamp::from_secs(1_800_000_000);
    let config = "route: {receiver: pager, group_by: [severity]}\n\
                  receivers: [{name: pager, webhook_configs: [{url: 'http://x'}]}]";
    let mut router = Router::open(router_config(config), Arc::new(MemoryStateLog::new()), metrics(), start).unwrap();
    let over = start + Duration::from_secs(5);
    let down = node_down_alert("shop@h1", "shop", start, true, "http://fw");
    router.apply(start, vec![alert("A", &[("severity", "critical"), ("node", "shop@h1")], start), down.clone()]);
    router.apply(over, vec![common::ended(down, over)]);
    let due = router.due(start + Duration::from_secs(10));
    serde_json::to_value(due[0].webhook_payload(0)).unwrap()
}

#[test]
fn a_payload_is_that_of_alertmanager() {
    let payload = payload();
    let expected = json!({
        "version": "4",
        "groupKey": "{}:{severity=\"critical\"}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "pager",
        "groupLabels": {"severity": "critical"},
        "commonLabels": {"node": "shop@h1", "severity": "critical"},
        "commonAnnotations": {},
        "externalURL": "http://fw",
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": "A", "node": "shop@h1", "severity": "critical"},
                "annotations": {"summary": "A fires"},
                "startsAt": "2027-01-15T08:00:00.000Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://fw/",
                "fingerprint": payload["alerts"][0]["fingerprint"],
            },
            {
                "status": "resolved",
                "labels": {"alertname": "NodeDown", "family": "shop", "node": "shop@h1", "severity": "critical"},
                "annotations": payload["alerts"][1]["annotations"],
                "startsAt": "2027-01-15T08:00:00.000Z",
                "endsAt": "2027-01-15T08:00:05.000Z",
                "generatorURL": "http://fw/?node=shop%40h1",
                "fingerprint": payload["alerts"][1]["fingerprint"],
            },
        ],
    });
    assert_eq!(payload, expected);
    assert_eq!(payload["alerts"][0]["fingerprint"].as_str().unwrap().len(), 16);
}

#[test]
fn payloads_keep_to_the_schema_and_the_check_can_fail() {
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap();
    let good = payload();
    check(&schema, &schema, &good, "payload").unwrap();
    let mutations: BTreeMap<&str, Box<dyn Fn(&mut Value)>> = BTreeMap::from([
        (
            "missing",
            Box::new(|v: &mut Value| drop(v.as_object_mut().unwrap().remove("groupKey"))) as Box<dyn Fn(&mut _)>,
        ),
        ("type", Box::new(|v: &mut Value| v["alerts"] = json!({}))),
        ("nested", Box::new(|v: &mut Value| v["alerts"][0]["labels"]["x"] = json!(1))),
        ("status", Box::new(|v: &mut Value| v["status"] = json!("pending"))),
        ("negative", Box::new(|v: &mut Value| v["truncatedAlerts"] = json!(-1))),
    ]);
    for (name, mutate) in mutations {
        let mut bad = good.clone();
        mutate(&mut bad);
        assert!(check(&schema, &schema, &bad, "payload").is_err(), "{name}");
    }
}
