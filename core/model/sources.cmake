# Sources and libraries of core/model.
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(ICU REQUIRED COMPONENTS uc)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(JPEG REQUIRED IMPORTED_TARGET libjpeg)
target_link_libraries(sparsight_core PUBLIC nlohmann_json::nlohmann_json PRIVATE ICU::uc PkgConfig::JPEG PkgConfig::PCRE2
                                                                           ${CMAKE_DL_LIBS})
# Where the bundled models are found by programs that run from the build folder.
set_property(SOURCE model/resources.cpp APPEND PROPERTY
    COMPILE_DEFINITIONS SPARSIGHT_RESOURCE_DIR="${PROJECT_SOURCE_DIR}/resources")
target_sources(sparsight_core PRIVATE
    model/architectures.cpp
    model/backend_or_cpu.cpp
    model/blas_env.cpp
    model/chat_template.cpp
    model/chat_template_functions.cpp
    model/chat_template_parser.cpp
    model/chat_template_renderer.cpp
    model/chat_template_values.cpp
    model/config.cpp
    model/config_reader.cpp
    model/device.cpp
    model/device_list.cpp
    model/encoder_config.cpp
    model/image_file.cpp
    model/image_input.cpp
    model/fact_sheet.cpp
    model/input.cpp
    model/json_input.cpp
    model/nearest.cpp
    model/next_tokens.cpp
    model/resources.cpp
    model/rope.cpp
    model/runner.cpp
    model/safetensors.cpp
    model/safetensors_header.cpp
    model/sha256.cpp
    model/stacks.cpp
    model/tokenizer.cpp
    model/tokenizer/added_tokens.cpp
    model/tokenizer/bpe.cpp
    model/tokenizer/decoders.cpp
    model/tokenizer/load.cpp
    model/tokenizer/normalizers.cpp
    model/tokenizer/post_processors.cpp
    model/tokenizer/pre_tokenizers.cpp
    model/tokenizer/precompiled.cpp
    model/tokenizer/regex.cpp
    model/tokenizer/sentencepiece.cpp
    model/tokenizer/tiktoken.cpp
    model/tokenizer/unicode.cpp
    model/tokenizer/unigram.cpp
    model/tokenizer/vocab.cpp
    model/tokenizer/vocab_and_merges.cpp
    model/tokenizer/word_models.cpp
    model/weights.cpp
)
