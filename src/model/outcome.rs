//! What can be said to a sender: ack levels, refusals, pressure.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// When a tile is acknowledged. One level for the whole daemon; the wire has no field for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckLevel {
    /// The checksum was verified and the bytes are in the daemon's memory. Lost with the process.
    Received,
    /// The record was handed to the operating system. Survives the process, not the machine.
    Written,
    /// The record was synced and is visible in the index. Survives a power cut (invariant 1).
    Durable,
    /// As durable, and synced in a second directory. Survives the loss of one of two disks.
    Replicated,
}

impl fmt::Display for AckLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Received => "received",
            Self::Written => "written",
            Self::Durable => "durable",
            Self::Replicated => "replicated",
        })
    }
}

impl FromStr for AckLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "received" => Ok(Self::Received),
            "written" => Ok(Self::Written),
            "durable" => Ok(Self::Durable),
            "replicated" => Ok(Self::Replicated),
            other => Err(format!("\"{other}\" is no ack level: replicated, durable, written or received")),
        }
    }
}

/// Why a tile was not accepted: each has its wire status and its name in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The length prefix is above the limit.
    TooLarge,
    /// A frame of length 0.
    EmptyFrame,
    /// Not a FlatBuffers `ImageTileRequest`, or one without an image.
    BadMessage,
    /// Negative column or row, frame below -1.
    BadKey,
    /// The checksum does not match, or its length names no algorithm.
    BadChecksum,
    /// No checksum where the daemon requires one.
    MissingChecksum,
    /// The acquisition was never started.
    UnknownAcquisition,
    /// Another content is stored under this key and the policy is `reject`.
    Conflict,
    /// Overloaded, timed out or stopping: resend later.
    Overloaded,
    /// An operator holds tiles back: resend later. Over HTTP only; the capture port is not read meanwhile.
    Paused,
    /// The file system is full.
    NoSpace,
    /// The mirror is lost and tiles are to be stored twice or not at all.
    MirrorLost,
    /// Writing or syncing failed.
    StorageFailed,
}

impl Refusal {
    /// All refusals, for metrics.
    pub const ALL: [Refusal; 13] = [
        Self::TooLarge,
        Self::EmptyFrame,
        Self::BadMessage,
        Self::BadKey,
        Self::BadChecksum,
        Self::MissingChecksum,
        Self::UnknownAcquisition,
        Self::Conflict,
        Self::Overloaded,
        Self::Paused,
        Self::NoSpace,
        Self::MirrorLost,
        Self::StorageFailed,
    ];

    /// The response's `status`: 1 do not resend unchanged, 2 resend later, 3 no space (or no second copy), 4 storage
    /// failed.
    #[must_use]
    pub fn status(self) -> i16 {
        match self {
            Self::Overloaded | Self::Paused => 2,
            Self::NoSpace | Self::MirrorLost => 3,
            Self::StorageFailed => 4,
            _ => 1,
        }
    }

    /// Name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::EmptyFrame => "empty_frame",
            Self::BadMessage => "bad_message",
            Self::BadKey => "bad_key",
            Self::BadChecksum => "bad_checksum",
            Self::MissingChecksum => "missing_checksum",
            Self::UnknownAcquisition => "unknown_acquisition",
            Self::Conflict => "conflict",
            Self::Overloaded => "overloaded",
            Self::Paused => "paused",
            Self::NoSpace => "no_space",
            Self::MirrorLost => "mirror_lost",
            Self::StorageFailed => "storage_failed",
        }
    }
}

/// How full a bounded thing is, as the wire and the HTTP headers say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Pressure {
    /// Below 70 % full.
    #[default]
    Green = 0,
    /// Below 90 % full.
    Yellow = 1,
    /// 90 % full and above, or refusing.
    Red = 2,
}

impl Pressure {
    /// Judges a fill of `used` out of `capacity`.
    #[must_use]
    pub fn of(used: usize, capacity: usize) -> Self {
        let (used, capacity) = (used as u128 * 10, capacity as u128);
        if used < capacity * 7 {
            Self::Green
        } else if used < capacity * 9 {
            Self::Yellow
        } else {
            Self::Red
        }
    }

    /// The wire's value.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The value of a wire code or stored byte; anything unknown is RED.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Green,
            1 => Self::Yellow,
            _ => Self::Red,
        }
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Green => "GREEN",
            Self::Yellow => "YELLOW",
            Self::Red => "RED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_turns_at_seventy_and_ninety_percent() {
        assert_eq!(Pressure::of(69, 100), Pressure::Green);
        assert_eq!(Pressure::of(70, 100), Pressure::Yellow);
        assert_eq!(Pressure::of(89, 100), Pressure::Yellow);
        assert_eq!(Pressure::of(90, 100), Pressure::Red);
    }

    #[test]
    fn ack_levels_order_from_weak_to_strong_and_parse_back() {
        assert!(AckLevel::Received < AckLevel::Written && AckLevel::Written < AckLevel::Durable);
        assert!(AckLevel::Durable < AckLevel::Replicated);
        for level in [AckLevel::Received, AckLevel::Written, AckLevel::Durable, AckLevel::Replicated] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
    }
}
