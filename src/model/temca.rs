//! TEMCAs and their cameras, as the operator describes them: which microscope a log is from, and what its tiles are.
//!
//! Must never be needed to store or serve a tile: whoever is not described has defaults.

use serde::{Deserialize, Serialize};

/// One microscope with its camera array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temca {
    /// Identifier, above 0; 0 stands for "not known".
    pub id: u32,
    /// The TEM's IP address, as acquisition logs name it.
    pub tem_ip_address: String,
    /// Its cameras.
    #[serde(default)]
    pub cameras: Vec<Camera>,
}

/// One camera of a TEMCA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// Index in the array, from 0.
    pub camera: u32,
    /// Width of its tiles, pixels. `None`: as the tile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height of its tiles, pixels. `None`: as the tile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// URL of the mask that goes with its tiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_url: Option<String>,
    /// Name of the calibration that transforms its tiles; importing one for this camera sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transformation: Option<String>,
}

/// Most cameras of a TEMCA that can be described.
const CAMERAS_MAX: usize = 1024;
/// Longest text in a description, bytes.
const TEXT_BYTES_MAX: usize = 1024;

impl Temca {
    /// A TEMCA of which only the identifier is known.
    #[must_use]
    pub fn unnamed(id: u32) -> Self {
        Self { id, tem_ip_address: String::new(), cameras: Vec::new() }
    }

    /// What is wrong with it. `None`: nothing.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let mut indices: Vec<u32> = self.cameras.iter().map(|camera| camera.camera).collect();
        indices.sort_unstable();
        let texts = self.cameras.iter().flat_map(|camera| [&camera.mask_url, &camera.transformation]).flatten();
        if self.id == 0 {
            return Some("a TEMCA's id must be above 0".to_owned());
        }
        if self.cameras.len() > CAMERAS_MAX {
            return Some(format!("{} cameras: at most {CAMERAS_MAX}", self.cameras.len()));
        }
        if let Some(twice) = indices.windows(2).find(|pair| pair[0] == pair[1]) {
            return Some(format!("camera {} is given twice", twice[0]));
        }
        if self.cameras.iter().any(|camera| camera.width == Some(0) || camera.height == Some(0)) {
            return Some("a camera's width and height must be above 0".to_owned());
        }
        if texts.chain([&self.tem_ip_address]).any(|text| text.len() > TEXT_BYTES_MAX) {
            return Some(format!("a text is longer than {TEXT_BYTES_MAX} bytes"));
        }
        None
    }

    /// The camera with this index.
    #[must_use]
    pub fn camera(&self, index: i32) -> Option<&Camera> {
        let index = u32::try_from(index).ok()?;
        self.cameras.iter().find(|camera| camera.camera == index)
    }

    /// The camera with this index, made when it is not described yet.
    pub fn camera_mut(&mut self, index: u32) -> &mut Camera {
        if let Some(n) = self.cameras.iter().position(|camera| camera.camera == index) {
            return &mut self.cameras[n];
        }
        self.cameras.push(Camera { camera: index, width: None, height: None, mask_url: None, transformation: None });
        let last = self.cameras.len() - 1;
        &mut self.cameras[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_that_contradicts_itself_is_named() {
        let mut temca = Temca::unnamed(2);
        assert_eq!(temca.problem(), None);
        temca.camera_mut(3).width = Some(0);
        assert!(temca.problem().is_some_and(|problem| problem.contains("width")));
        temca.camera_mut(3).width = Some(5);
        temca.cameras.push(temca.cameras[0].clone());
        assert!(temca.problem().is_some_and(|problem| problem.contains("camera 3")));
        assert!(Temca::unnamed(0).problem().is_some());
    }
}
