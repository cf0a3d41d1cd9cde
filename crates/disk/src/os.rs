//! The cold side over the operating system.
