//! forewarn as a program.
pub mod config;
pub mod data_dir;
pub mod page;
pub mod web;
pub mod cli {
    /// x
    pub fn main() -> std::process::ExitCode {
        std::process::ExitCode::SUCCESS
    }
}
pub mod exporter;
pub mod view;
