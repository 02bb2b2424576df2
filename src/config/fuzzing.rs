//! Configuration files and load profiles of any text: see `crate::fuzzing`.

use super::{Origin, Settings, keys, temca_tables};
use crate::replay::Profile;

/// A configuration file: what it says is printed as a file that says the same.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(profile) = Profile::parse(&text) {
        assert!(profile.tiles_per_s().is_finite() && profile.tiles_per_s() > 0.0, "{profile:?}");
        assert!(profile.bytes_per_s().is_finite());
    }
    let Ok(settings) = read(&text) else { return };
    let again = read(&printed(&settings)).expect("what we print we read");
    let values = |settings: &Settings| settings.iter().map(|(_, value, _)| value.to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&again), values(&settings));
    assert_eq!(temca_tables(&again.config.temcas), temca_tables(&settings.config.temcas));
}

fn read(text: &str) -> Result<Settings, super::ConfigError> {
    let mut settings = Settings::defaults();
    settings.add_text(text, &Origin::File("fuzz.toml".into()))?;
    settings.read_all()?;
    Ok(settings)
}

fn printed(settings: &Settings) -> String {
    let mut text = String::new();
    for key in keys::KEYS {
        let (value, _) = &settings.values[key.name];
        text.push_str(&format!("{} = {}\n", key.name, toml::Value::String(value.clone())));
    }
    text + &temca_tables(&settings.config.temcas)
}
