#include "sessions/h5_handles.h"

#include <limits>

namespace sparsight::sessions {

std::string h5Reason() {
    std::string reason = "no reason given";
    H5Ewalk2(
        H5E_DEFAULT, H5E_WALK_UPWARD,
        [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
            if (n == 0 && error->desc) *static_cast<std::string*>(out) = error->desc;
            return 0;
        },
        &reason);
    return reason;
}

void h5Quiet() {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

H5Type h5TypeOf(const std::string& name) {
    if (name == "f32") return H5Type(H5Tcopy(H5T_IEEE_F32LE), "make a type");
    if (name == "i32") return H5Type(H5Tcopy(H5T_STD_I32LE), "make a type");
    if (name == "i64") return H5Type(H5Tcopy(H5T_STD_I64LE), "make a type");
    if (name != "f16" && name != "bf16")
        throw Error(Errc::Format, "a segment has no element type '" + name + "'");
    H5Type type(H5Tcopy(H5T_IEEE_F32LE), "make a type");
    const bool half = name == "f16";
    h5Check(H5Tset_fields(type, 15, half ? 10 : 7, half ? 5 : 8, 0, half ? 10 : 7), "make a type");
    h5Check(H5Tset_size(type, 2), "make a type");
    h5Check(H5Tset_ebias(type, half ? 15 : 127), "make a type");
    return type;
}

std::string h5TypeName(hid_t type) {
    for (const char* name : {"f32", "f16", "bf16", "i32", "i64"})
        if (H5Tequal(type, h5TypeOf(name)) > 0) return name;
    return {};
}

H5Properties h5Access() {
    H5Properties access(H5Pcreate(H5P_FILE_ACCESS), "prepare a file");
    h5Check(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), "choose its format");
    return access;
}

std::vector<hsize_t> h5Dims(const std::vector<Index>& shape) {
    std::vector<hsize_t> dims;
    for (const Index n : shape) dims.push_back(hsize_t(n));
    return dims;
}

void h5WriteAttributes(hid_t object, const nlohmann::json& attributes) {
    const H5Space scalar(H5Screate(H5S_SCALAR), "make an attribute");
    const auto put = [&](const std::string& key, hid_t type, hid_t memory, const void* value) {
        const H5Attribute a(H5Acreate2(object, key.c_str(), type, scalar, H5P_DEFAULT, H5P_DEFAULT),
                            "make the attribute " + key);
        h5Check(H5Awrite(a, memory, value), "write the attribute " + key);
    };
    for (const auto& [key, value] : attributes.items()) {
        if (value.is_number_integer()) {
            const auto number = value.get<long long>();
            const bool fits = number >= std::numeric_limits<std::int32_t>::min() &&
                              number <= std::numeric_limits<std::int32_t>::max();
            put(key, fits ? H5T_STD_I32LE : H5T_STD_I64LE, H5T_NATIVE_LLONG, &number);
        } else if (value.is_number()) {
            const double number = value.get<double>();
            put(key, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &number);
        } else {
            std::string text = value.get<std::string>();
            for (char& c : text)
                if (c < 0x20 || c > 0x7e) c = '?';
            if (text.empty()) text.assign(1, '\0');
            const H5Type type(H5Tcopy(H5T_C_S1), "make a text type");
            h5Check(H5Tset_size(type, text.size()), "make a text type");
            h5Check(H5Tset_strpad(type, H5T_STR_NULLPAD), "make a text type");
            put(key, type, type, text.data());
        }
    }
}

nlohmann::json h5ReadAttributes(hid_t object, const std::string& name) {
    constexpr std::size_t kMostText = 1 << 16;
    nlohmann::json result = nlohmann::json::object();
    const int count = H5Aget_num_attrs(object);
    if (count < 0 || count > 64)
        throw Error(Errc::Format, "the segment's " + name + " has no readable attributes");
    for (int i = 0; i < count; ++i) {
        const H5Attribute a(H5Aopen_by_idx(object, ".", H5_INDEX_NAME, H5_ITER_INC, hsize_t(i),
                                           H5P_DEFAULT, H5P_DEFAULT),
                            "open an attribute of " + name);
        char key[65] = {};
        if (H5Aget_name(a, sizeof key, key) < 0) key[0] = 0;
        const std::string what = "read the attribute " + name + "/" + key;
        const H5Space space(H5Aget_space(a), what);
        const H5Type type(H5Aget_type(a), what);
        const std::size_t size = H5Tget_size(type);
        const H5T_class_t kind = H5Tget_class(type);
        if (H5Sget_simple_extent_npoints(space) != 1 || H5Tis_variable_str(type) != 0)
            throw Error(Errc::Format, "the attribute " + name + "/" + key +
                                          " is no plain value; Sparsight never writes such a one");
        if (kind == H5T_INTEGER && size <= 8) {
            long long number = 0;
            h5Check(H5Aread(a, H5T_NATIVE_LLONG, &number), what);
            result[key] = number;
        } else if (kind == H5T_FLOAT && size <= 8) {
            double number = 0;
            h5Check(H5Aread(a, H5T_NATIVE_DOUBLE, &number), what);
            result[key] = number;
        } else if (kind == H5T_STRING && size <= kMostText) {
            std::string text(size, '\0');
            h5Check(H5Aread(a, type, text.data()), what);
            result[key] = text.substr(0, text.find('\0'));
        } else {
            throw Error(Errc::Format, "the attribute " + name + "/" + key + " has a foreign type");
        }
    }
    return result;
}

}  // namespace sparsight::sessions
