// The picture encoders of llama.cpp and ik_llama.cpp behind the same few functions; see shim.cpp.

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "ggml.h"
#include "llama.h"
#include "mtmd.h"

static void print_errors(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

extern "C" {

// `most_tokens` is the largest picture, in place of the peer's own limit of 1,024 tokens.
mtmd_context * encoder_open(const char * pictures, const char * decoder, int threads, int most_tokens) {
    llama_log_set(print_errors, nullptr);
    llama_backend_init();
    llama_model_params model_params = llama_model_default_params();
    llama_model * model = llama_model_load_from_file(decoder, model_params);
    if (!model) return nullptr;
    mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu = params.print_timings = false;
    params.n_threads = threads;
    params.image_max_tokens = most_tokens;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    return mtmd_init_from_file(pictures, model, params);
}

// A picture of `width` × `height` pixels, [height, width, 3], cut into patches; null if it cannot be.
mtmd_input_chunks * encoder_prepare(mtmd_context * encoder, int width, int height, const uint8_t * pixels) {
    mtmd_bitmap * bitmap = mtmd_bitmap_init(width, height, pixels);
    mtmd_input_text text{};
    text.text = mtmd_default_marker();
#ifndef IK
    text.text_len = strlen(text.text);
#endif
    mtmd_input_chunks * chunks = mtmd_input_chunks_init();
    const mtmd_bitmap * bitmaps[] = {bitmap};
    const int failed = mtmd_tokenize(encoder, chunks, &text, bitmaps, 1);
    mtmd_bitmap_free(bitmap);
    return failed ? nullptr : chunks;
}

// Runs the tower and projector. Returns the picture's tokens, or -1.
int encoder_run(mtmd_context * encoder, mtmd_input_chunks * chunks) {
    for (size_t i = 0; i < mtmd_input_chunks_size(chunks); ++i) {
        const mtmd_input_chunk * chunk = mtmd_input_chunks_get(chunks, i);
        if (mtmd_input_chunk_get_type(chunk) != MTMD_INPUT_CHUNK_TYPE_IMAGE) continue;
        if (mtmd_encode_chunk(encoder, chunk) != 0) return -1;
        return mtmd_input_chunk_get_n_tokens(chunk);
    }
    return -1;
}

}
