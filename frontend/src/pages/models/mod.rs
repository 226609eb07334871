//! Off-the-shelf models that this lab knows, and which of them fit.

use crate::api::{self, Failure};
use crate::parts::format;
use crate::parts::settling::settling;
use crate::source::at;
use crate::words::{said, t};
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::bringing::{ModelInfo, ModelList};

type Known = Option<Result<ModelList, Failure>>;

/// The page.
#[component]
pub fn Models() -> impl IntoView {
    let models = RwSignal::new(None);
    let settling = settling(move || models.with(Option::is_some));
    load(models);
    view! {
        <div class="models-page" class:settling=move || settling.get()>
            <h1>{t("Models")}</h1>
            <p class="muted">
                {t("Besides its own small models the lab steers models as people have them on their disks: Llama, SmolLM2, Mistral, Qwen2 and Qwen3, as a Hugging Face folder or a GGUF file. Policy, reference and reward model share one copy of the weights; what is trained are adapters beside them.")}
            </p>
            <section id="models" class="section" aria-labelledby="models-title">
                <h2 id="models-title">{t("On this machine")}</h2>
                {move || models.with(|known| list(known, models))}
            </section>
            <section class="section" aria-labelledby="add-title">
                <h2 id="add-title">{t("Add one")}</h2>
                <p class="muted">{t("On the command line of the machine that the lab runs on, where the files are, or from where they are fetched:")}</p>
                <pre class="card code" tabindex="0">"moslim-lab models add ~/models/SmolLM2-135M-Instruct\nmoslim-lab models add SmolLM2-135M-Instruct.Q4_1.gguf\nmoslim-lab models add OWNER/NAME"</pre>
            </section>
        </div>
    }
}

fn load(models: RwSignal<Known>) {
    spawn_local(async move {
        let answer = api::models().await;
        let _ = models.try_set(Some(answer));
    });
}

fn list(known: &Known, models: RwSignal<Known>) -> AnyView {
    match known {
        None => view! { <p class="card empty" role="status">{t("Loading the list…")}</p> }.into_any(),
        Some(Err(failure)) => view! {
            <div class="card banner error" role="alert">
                <p>{failure.message.clone()}</p>
                <button class="button" type="button" on:click=move |_| load(models)>{t("Try again")}</button>
            </div>
        }
        .into_any(),
        Some(Ok(known)) if known.models.is_empty() => {
            view! { <p class="card empty" role="status">{t("None was added yet. The built-in world needs none.")}</p> }.into_any()
        }
        Some(Ok(known)) => {
            let free = known.free_mib;
            let memory = free.map(|free| said("{0} of memory are free here.", &[&size(free << 20)]));
            let rows = known.models.iter().map(|m| row(m, free)).collect_view();
            view! { <p class="hint">{memory}</p><ul class="runs">{rows}</ul> }.into_any()
        }
    }
}

/// Bytes in words.
fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{} GB", format::number(b / 1e9, 1)),
        b if b >= 1e6 => format!("{} MB", format::number(b / 1e6, 0)),
        b => format!("{} kB", format::number(b / 1e3, 0)),
    }
}

/// Weights in words.
fn weights(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => said("{0} billion", &[&format::number(n / 1e9, 1)]),
        n if n >= 1e6 => said("{0} million", &[&format::number(n / 1e6, 0)]),
        n => said("{0} thousand", &[&format::number(n / 1e3, 0)]),
    }
}

fn row(model: &ModelInfo, free: Option<u64>) -> AnyView {
    let fits = free.is_none_or(|free| model.memory_mib <= free);
    let stored = model.storages.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let shape = said(
        "{0}, {1} layers of {2}, vocabulary {3}, context {4}, {5}",
        &[
            &model.family,
            &model.layers.to_string(),
            &model.d_model.to_string(),
            &format::count(model.vocabulary as u64),
            &format::count(model.context as u64),
            if model.template { t("with a chat template") } else { t("without a chat template") },
        ],
    );
    let train = at(&format!("/configure?preset=offtheshelf&model={}", model.name));
    view! {
        <li class="run model" data-model=model.name.clone()>
            <span class="run-name"><b>{model.name.clone()}</b><span class="hint">{shape}</span></span>
            <span class="run-figure"><span class="hint">{t("weights")}</span>{weights(model.weights)}</span>
            <span class="run-figure"><span class="hint">{t("on disk")}</span>{format!("{} ({stored})", size(model.bytes))}</span>
            <span class="run-figure">
                <span class="hint">{t("memory at least")}</span>
                <span class:bad=!fits>{format!("{}{}", size(model.memory_mib << 20), if fits { "" } else { t(": does not fit") })}</span>
            </span>
            <a class="button" href=train>{t("Steer it")}</a>
        </li>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_the_largest_unit() {
        assert_eq!((size(2_600), size(135_000_000), size(1_260_000_000)), ("3 kB".into(), "135 MB".into(), "1.3 GB".into()));
        assert_eq!(
            (weights(1_500), weights(134_515_008), weights(1_235_814_400)),
            ("2 thousand".into(), "135 million".into(), "1.2 billion".into())
        );
    }
}
