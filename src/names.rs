//! That the catalogue reads what the collectors write: the two crates do not know each other, and meet only here.

#[test]
fn every_name_of_our_own_collectors_in_the_catalogue_is_one_that_they_write() {
    let written = concat!(include_str!("../docs/metrics-host.md"), include_str!("../docs/metrics-beam.md"));
    let words = |text: &'static str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let written: std::collections::BTreeSet<&str> = words(written).collect();
    let mut read = 0;
    for name in
        words(include_str!("../analyze/catalogue.yaml")).filter(|w| w.starts_with("host_") || w.starts_with("beam_"))
    {
        assert!(written.contains(name), "{name} is in the catalogue, but no collector writes it");
        read += 1;
    }
    assert!(read > 30);
}
