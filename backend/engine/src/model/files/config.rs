//! `config.json` for a decoder, as Hugging Face's libraries read it.

use super::blocks::Storage;
use crate::model::architecture::{Architecture, Family, RopeScaling};
use anyhow::{Result, bail};
use serde_json::{Value, json};

/// The name of a storage in config.json.
pub fn dtype(storage: Storage) -> &'static str {
    match storage {
        Storage::F16 => "float16",
        Storage::Bf16 => "bfloat16",
        _ => "float32",
    }
}

/// The configuration of `a`, whose weights are stored as `storage`. The lab's own decoder is a Llama.
///
/// # Errors
/// When its rotary frequencies follow no rule that such a file can state.
pub fn config(a: &Architecture, storage: Storage, bos: Option<u32>, eos: Option<u32>) -> Result<Value> {
    let family = Family::of(&a.family).map_or("llama", |f| f.id);
    let class = match family {
        "mistral" => "MistralForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        _ => "LlamaForCausalLM",
    };
    let scaling = match a.rope.scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor, "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_context as u64,
        }),
        RopeScaling::Each { .. } => {
            bail!("every rotary frequency has a divisor of its own, which config.json cannot say; a GGUF file can")
        }
    };
    let mut out = json!({
        "architectures": [class],
        "model_type": family,
        "hidden_size": a.d_model,
        "intermediate_size": a.d_ff,
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": a.context,
        "rms_norm_eps": a.norm_eps.to_string().parse::<f64>().unwrap_or_else(|_| f64::from(a.norm_eps)),
        "rope_theta": a.rope.theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": a.tied,
        "vocab_size": a.vocabulary,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": dtype(storage),
        "use_cache": true,
    });
    if family == "mistral" {
        out["sliding_window"] = Value::Null;
    }
    if family == "llama" {
        out["attention_bias"] = json!(false);
        out["mlp_bias"] = json!(false);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::ModelFiles;
    use super::*;
    use std::path::Path;

    #[test]
    fn what_is_written_is_what_was_read() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
        for name in ["llama", "llama3", "linear", "mistral", "qwen2", "qwen3", "smollm2"] {
            let a = ModelFiles::open(&fixtures.join(name), &[]).unwrap().architecture;
            let again = Architecture::of_config(&config(&a, Storage::F32, None, Some(1)).unwrap(), &[]).unwrap();
            assert_eq!(again, a, "{name}");
        }
    }
}
