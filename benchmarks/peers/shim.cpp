// llama.cpp and ik_llama.cpp behind the same few functions, so that one measuring loop drives both.
// Compiled against the peer's own headers; with -DIK for ik_llama.cpp, whose options and names differ.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

struct Peer {
    llama_model * model;
    llama_context * context;
    llama_batch batch;
    std::vector<int32_t> counts;  // [layers, experts]: tokens that each expert was given
};

static const int MOST_EXPERTS = 1024;
static const int STEP = 512;

#ifdef IK
using Answer = int;
#else
using Answer = bool;
#endif

static Answer count_experts(ggml_tensor * tensor, bool ask, void * peer_) {
    const char * name = "ffn_moe_topk-";  // [used, tokens], a view of [experts, tokens]
    if (strncmp(tensor->name, name, strlen(name)) != 0) return !ask;
    if (ask) return true;
    Peer * peer = static_cast<Peer *>(peer_);
    const int layer = atoi(tensor->name + strlen(name));
    std::vector<int32_t> chosen(tensor->ne[0]);
    for (int64_t token = 0; token < tensor->ne[1]; ++token) {
        ggml_backend_tensor_get(tensor, chosen.data(), token * tensor->nb[1], chosen.size() * sizeof(int32_t));
        for (int32_t expert : chosen) peer->counts[layer * MOST_EXPERTS + expert]++;
    }
    return true;
}

static void print_errors(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

extern "C" {

Peer * peer_open(const char * path) {
    llama_log_set(print_errors, nullptr);
    llama_backend_init();
    llama_model_params params = llama_model_default_params();
#ifdef IK
    params.mla = 3;
    params.flash_attn = params.repack_tensors = true;
    params.use_mmap = false;  // as its tools do when they repack
#endif
    llama_model * model = llama_model_load_from_file(path, params);
    if (!model) return nullptr;
    return new Peer{model, nullptr, llama_batch_init(STEP, 0, 1), std::vector<int32_t>(MOST_EXPERTS * MOST_EXPERTS)};
}

// A new, empty cache in place of the last one; `tokens` are for all sequences together.
bool peer_context(Peer * peer, int threads, int tokens, int sequences, bool flash, bool counting) {
    if (peer->context) llama_free(peer->context);
    llama_context_params params = llama_context_default_params();
#ifdef IK
    params.mla_attn = 3;
    params.flash_attn = flash;
    params.fused_moe_up_gate = params.fused_up_gate = params.fused_mmad = params.graph_reuse = true;
#else
    params.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
#endif
    params.n_ctx = tokens;
    params.n_batch = params.n_ubatch = STEP;
    params.n_seq_max = sequences;
    params.n_threads = params.n_threads_batch = threads;
    if (counting) {
        params.cb_eval = count_experts;
        params.cb_eval_user_data = peer;
    }
    peer->context = llama_init_from_model(peer->model, params);
    return peer->context != nullptr;
}

int peer_vocabulary(Peer * peer) { return llama_vocab_n_tokens(llama_model_get_vocab(peer->model)); }

// One step on up to STEP tokens; the last token of each sequence gives logits. Not zero if it failed.
int peer_step(Peer * peer, const int32_t * ids, const int32_t * positions, const int32_t * sequences, int count) {
    llama_batch & batch = peer->batch;
    batch.n_tokens = count;
    for (int i = 0; i < count; ++i) {
        batch.token[i] = ids[i];
        batch.pos[i] = positions[i];
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = sequences[i];
        batch.logits[i] = i + 1 == count || sequences[i + 1] != sequences[i];
    }
    const int failed = llama_decode(peer->context, batch);
    llama_synchronize(peer->context);
    return failed;
}

// Keeps the first `tokens` of a sequence.
void peer_cut(Peer * peer, int sequence, int tokens) {
#ifdef IK
    llama_kv_cache_seq_rm(peer->context, sequence, tokens, -1);
#else
    llama_memory_seq_rm(llama_get_memory(peer->context), sequence, tokens, -1);
#endif
}

size_t peer_state_size(Peer * peer) {
#ifdef IK
    return llama_state_seq_get_size(peer->context, 0, 0);
#else
    return llama_state_seq_get_size(peer->context, 0);
#endif
}

size_t peer_state(Peer * peer, uint8_t * state, size_t size) {
#ifdef IK
    return llama_state_seq_get_data(peer->context, state, size, 0, 0);
#else
    return llama_state_seq_get_data(peer->context, state, size, 0);
#endif
}

size_t peer_restore(Peer * peer, const uint8_t * state, size_t size) {
#ifdef IK
    return llama_state_seq_set_data(peer->context, state, size, 0, 0);
#else
    return llama_state_seq_set_data(peer->context, state, size, 0);
#endif
}

const int32_t * peer_counts(Peer * peer, int layer) { return &peer->counts[layer * MOST_EXPERTS]; }

}
