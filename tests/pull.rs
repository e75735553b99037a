//! `infer pull`: one hostile hub, index or folder for each of its rules.

mod conversion;
mod hub;
mod isolation;
mod packages;
mod setting;
