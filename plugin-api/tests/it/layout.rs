//! The ABI's layout: every type that crosses, down to its last field.

use std::{collections::HashMap, fmt::Write};

use abi_stable::{
    StableAbi,
    std_types::UTypeId,
    type_layout::{TLData, TLField, TLFunction, TypeLayout},
};
use boxyard_plugin_api::abi::PluginModuleRef;

use crate::golden;

const WHAT_A_CHANGE_MEANS: &str = "\
The ABI moved: a library that was built before no longer fits, unless all that happened is \
that entries were appended after the last field of a prefix type. Appended entries need a new minor \
version of this crate and an entry in CHANGELOG.md; anything else needs a new major version.";

#[test]
fn the_abi_has_not_moved() {
    golden::check("abi.golden", &describe(), WHAT_A_CHANGE_MEANS);
}

#[test]
fn the_description_reaches_every_table() {
    let text = describe();
    for table in [
        "PluginModule",
        "SandboxTypeVTable",
        "SandboxVTable",
        "ToolVTable",
        "HostServicesVTable",
        "SandboxServicesVTable",
        "CallVTable",
        "ByteSourceVTable",
        "ByteSinkVTable",
    ] {
        let title = format!("\nboxyard-plugin-api: {table}\n");
        assert_eq!(text.matches(&title).count(), 1, "{table}");
    }
}

/// Returns the names of a prefix type's fields, in order.
pub(crate) fn entries_of<T: StableAbi>() -> Vec<&'static str> {
    // A reference to a prefix type names the type as a phantom.
    let table = T::LAYOUT.phantom_fields().get(0).unwrap().layout();
    assert!(table.is_prefix_kind());
    let fields = table.get_fields().unwrap();
    fields.iter().map(|field| field.name()).collect()
}

/// Describes every type that can be reached from the root of a plugin, each once, in the
/// order in which they are met.
fn describe() -> String {
    let mut walk = Walk::default();
    walk.meet(PluginModuleRef::LAYOUT);
    let mut next = 0;
    while let Some(layout) = walk.met.get(next).copied() {
        walk.write(layout);
        next += 1;
    }
    walk.text
}

#[derive(Default)]
struct Walk {
    /// The types that were met, by their full name, which different types may share.
    namesakes: HashMap<String, Vec<UTypeId>>,
    met: Vec<&'static TypeLayout>,
    text: String,
}

impl Walk {
    /// Returns a type's name, numbered from its second namesake on; it is described later.
    fn meet(&mut self, layout: &'static TypeLayout) -> String {
        // `abi_stable` pads some names with spaces.
        let padded = layout.full_type().to_string();
        let name = padded.split_whitespace().collect::<Vec<_>>().join(" ");
        let namesakes = self.namesakes.entry(name.clone()).or_default();
        let id = layout.get_utypeid();
        let number = namesakes.iter().position(|namesake| *namesake == id);
        let number = number.unwrap_or_else(|| {
            namesakes.push(id);
            self.met.push(layout);
            namesakes.len() - 1
        });
        match number {
            0 => name,
            _ => format!("{name} #{}", number + 1),
        }
    }

    fn line(&mut self, depth: usize, line: &str) {
        writeln!(self.text, "{}{line}", "    ".repeat(depth)).unwrap();
    }

    fn write(&mut self, layout: &'static TypeLayout) {
        let name = self.meet(layout);
        self.line(0, &format!("{}: {name}", layout.package()));
        let size = format!("size {} align {}", layout.size(), layout.alignment());
        let kind = layout.data_discriminant();
        let repr = layout.repr_attr();
        let nonzero = if layout.is_nonzero() { ", nonzero" } else { "" };
        self.line(1, &format!("{size}, {kind:?}, repr {repr:?}{nonzero}"));
        self.write_data(layout);
        for field in layout.phantom_fields().iter() {
            self.write_field("phantom", field);
        }
        for parameter in layout.generics().type_params() {
            let name = self.meet(parameter());
            self.line(1, &format!("parameter {name}"));
        }
        self.line(0, "");
    }

    fn write_data(&mut self, layout: &'static TypeLayout) {
        match layout.data() {
            TLData::Primitive(_) | TLData::Opaque => {}
            TLData::Struct { fields } | TLData::Union { fields } => {
                for field in fields.iter() {
                    self.write_field("field", field);
                }
            }
            TLData::Enum(tl_enum) => {
                let exhaustive = tl_enum.exhaustiveness.is_exhaustive();
                let discriminants = tl_enum.discriminants;
                self.line(
                    1,
                    &format!("discriminants {discriminants:?}, exhaustive {exhaustive}"),
                );
                let mut fields = tl_enum.fields.iter();
                let variants = tl_enum.variant_names_iter();
                for (variant, count) in variants.zip(tl_enum.field_count.iter()) {
                    self.line(1, &format!("variant {variant}"));
                    for field in fields.by_ref().take(usize::from(*count)) {
                        self.write_field("    field", field);
                    }
                }
            }
            TLData::PrefixType(prefix) => {
                let suffix = usize::from(prefix.first_suffix_field);
                for (index, field) in prefix.fields.iter().enumerate() {
                    self.write_field(if index < suffix { "prefix" } else { "suffix" }, field);
                }
                let last = suffix.checked_sub(1).and_then(|at| prefix.fields.get(at));
                let last = last.map_or("none", |field| field.name());
                self.line(1, &format!("last_prefix_field {last}"));
                self.line(1, &format!("first_suffix_field {suffix}"));
                let conditional = prefix.conditional_prefix_fields.bits();
                self.line(1, &format!("conditional_prefix_fields {conditional:b}"));
            }
        }
    }

    fn write_field(&mut self, kind: &str, field: TLField) {
        let head = format!("{kind} {}", field.name());
        if !field.is_function() {
            let name = self.meet(field.layout());
            self.line(1, &format!("{head}: {name}"));
        }
        for function in field.function_range().iter() {
            self.write_function(&head, &function);
        }
    }

    fn write_function(&mut self, head: &str, function: &TLFunction) {
        let qualifier = if function.fn_qualifs.is_unsafe() {
            "unsafe "
        } else {
            ""
        };
        self.line(1, &format!("{head}: {qualifier}extern \"C\" fn"));
        // The documentation of `abi_stable` says that `;` separates the names; `,` does.
        let mut names = function.param_names.as_str().split([',', ';']);
        for layout in function.param_type_layouts.iter() {
            let name = names.next().unwrap_or_default();
            let layout = self.meet(layout());
            self.line(3, &format!("{name}: {layout}"));
        }
        let answer = function.return_type_layout();
        let answer = self.meet(answer.map_or(<()>::LAYOUT, |layout| layout()));
        self.line(3, &format!("-> {answer}"));
    }
}
