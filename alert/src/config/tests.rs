use super::*;

fn parse(yaml: &str) -> AlertConfig {
    serde_saphyr::from_str(yaml).unwrap()
}

fn errors(yaml: &str) -> Vec<String> {
    parse(yaml).validate().iter().map(ToString::to_string).collect()
}

#[test]
fn a_file_of_alertmanager_is_read() {
    let c = parse(
        r#"
route:
  receiver: team
  group_by: [alertname, cluster]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 3h
  routes:
    - matchers: ['severity="critical"', 'service=~"db|cache"']
      receiver: pager
      continue: true
    - matchers: ['{team="x", env!="dev"}']
      receiver: team
    - match: {old: form}
      match_re: {also: "old.*"}
      receiver: team
receivers:
  - name: team
    webhook_configs:
      - url: "https://example.com/hook?token=hush"
        send_resolved: false
        max_alerts: 10
        timeout: 3s
        http_config: {authorization: {credentials: hush}}
  - name: pager
    webhook_configs:
      - url_file: /etc/forewarn/pager.url
"#,
    );
    assert_eq!(c.validate(), []);
    let route = c.route.as_ref().unwrap();
    assert_eq!(route.repeat_interval, Some(Duration::from_secs(3 * 3600)));
    assert_eq!(route.routes[0].matchers().unwrap().len(), 2);
    assert_eq!(route.routes[1].matchers().unwrap().len(), 2);
    assert_eq!(route.routes[2].matchers().unwrap().len(), 2);
    assert!(!c.receivers[0].webhook_configs[0].send_resolved);
    assert!(c.receivers[1].webhook_configs[0].send_resolved, "on by default");
    assert!(!format!("{c:?}").contains("hush"));
    assert!(!serde_json::to_string(&c).unwrap().contains("hush"));
}

#[test]
fn every_error_is_named_with_its_path() {
    let found = errors(
        r#"
route:
  receiver: nobody
  matchers: ['a="b"']
  group_by: [a, '...']
  group_interval: 0s
  routes:
    - receiver: who
      matchers: ['a=~"("', 'b']
receivers:
  - name: a
  - name: a
  - webhook_configs:
      - {}
      - {url: "ftp://x", url_file: /x}
      - {url: "not a url?token=hush"}
      - {url: "http://x", timeout: 0s, http_config: {authorization: {credentials: "a\nb"}, basic_auth: {username: "a:b"}}}
"#,
    );
    let expected = [
        "receivers[1].name: receiver \"a\" is there twice",
        "receivers[2].name: a receiver needs a name",
        "receivers[2].webhook_configs[0]: url or url_file is missing",
        "receivers[2].webhook_configs[1]: url and url_file exclude each other",
        "receivers[2].webhook_configs[2].url: not a URL: relative URL without a base",
        "receivers[2].webhook_configs[3].timeout: it must be more than 0",
        "receivers[2].webhook_configs[3].http_config: authorization and basic_auth exclude each other",
        "receivers[2].webhook_configs[3].http_config.authorization: it has a character that no HTTP header may have",
        "receivers[2].webhook_configs[3].http_config.basic_auth: password or password_file is missing",
        "receivers[2].webhook_configs[3].http_config.basic_auth.username: a user name cannot have a colon",
        "route.matchers: the root route must match every alert, so it has no matchers",
        "route.receiver: there is no receiver \"nobody\"",
        "route.group_by: '...' stands alone: it means all labels",
        "route.group_interval: it must be more than 0",
        "route.routes[0].receiver: there is no receiver \"who\"",
    ];
    assert_eq!(&found[..expected.len()], &expected);
    assert_eq!(found.len(), expected.len() + 2, "and one for each bad matcher: {found:#?}");
}

#[test]
fn unknown_keys_are_refused() {
    for yaml in ["rout: {}", "route: {receivr: x}", "receivers: [{name: x, slack_configs: []}]", "flap_hold: 5"] {
        assert!(serde_saphyr::from_str::<AlertConfig>(yaml).is_err(), "{yaml}");
    }
}

#[test]
fn without_a_route_the_only_receiver_or_the_log_gets_everything() {
    let (route, receivers) = AlertConfig::default().resolved();
    assert_eq!((route.receiver.as_deref(), receivers[0].log_configs.len()), (Some("log"), 1));

    let one = parse("receivers: [{name: ops, webhook_configs: [{url: 'http://127.0.0.1/'}]}]");
    assert_eq!(one.validate(), []);
    assert_eq!(one.resolved().0.receiver.as_deref(), Some("ops"));

    assert_eq!(
        errors("receivers: [{name: a}, {name: b}]"),
        ["route: it is missing, and there is more than one receiver to choose from"]
    );
}
